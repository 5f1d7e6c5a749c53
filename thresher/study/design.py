"""What a study draws: its temperatures, its samples per prompt, and its rewordings of the prompts."""

from dataclasses import dataclass

from thresher.errors import ThresherError
from thresher.study.prompt_variants import WORDINGS

TEMPERATURES = (0.0, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.2, 1.5)
SAMPLES = 16
MOST_TEMPERATURES, HOTTEST = 64, 10.0
_EXAMPLES = "wanted numbers between commas, such as 0,0.5,1 or 0,0.1,...,1.5"


@dataclass(frozen=True)
class Design:
    """How much a study draws: `samples` completions of every prompt at each temperature above 0, and one greedy answer.

    Raises ThresherError without temperature 1 and another temperature above 0, with a temperature twice, or below 2 samples.
    """

    temperatures: tuple[float, ...] = TEMPERATURES
    samples: int = SAMPLES
    wordings: tuple[str, ...] = WORDINGS

    def __post_init__(self) -> None:
        warm = [temperature for temperature in self.temperatures if temperature > 0]
        if 1.0 not in warm or len(warm) < 2 or len(set(warm)) < len(warm) or min(self.temperatures) < 0:
            listed = ", ".join(f"{temperature:g}" for temperature in self.temperatures)
            raise ThresherError(
                f"--temperatures {listed}: wanted 1 and at least one other temperature above 0, each once: every hypothesis "
                "compares with temperature 1 (0, the greedy answer, is always drawn)"
            )
        if self.samples < 2:
            raise ThresherError(f"--samples {self.samples}: wanted 2 or more per prompt and temperature")


def temperatures_of(text: str) -> tuple[float, ...]:
    """Parse the temperatures of a command line: `0,0.5,1`, or with `...` for evenly spaced ones, as in `0,0.1,...,1.5`.

    Raises ThresherError.
    """
    temperatures: list[float] = []
    parts = [part.strip() for part in text.split(",")]
    for position, part in enumerate(parts):
        if part != "...":
            temperatures.append(_temperature(part, text))
        elif position + 2 == len(parts):
            temperatures += _between(temperatures, _temperature(parts[-1], text), text)
        else:
            raise _misplaced_dots(text)
    return tuple(temperatures)


def _temperature(part: str, text: str) -> float:
    try:
        value = float(part)
    except ValueError as error:
        raise ThresherError(f"--temperatures {text}: {part!r} is not a number; {_EXAMPLES}") from error
    if not 0 <= value <= HOTTEST:
        raise ThresherError(f"--temperatures {text}: {part} is not between 0 and {HOTTEST:g}")
    return value


def _between(before: list[float], last: float, text: str) -> list[float]:
    """The temperatures that `...` stands for, between the two before it and the `last`."""
    if len(before) < 2 or not before[-2] < before[-1] < last:
        raise _misplaced_dots(text)
    step = before[-1] - before[-2]
    count = round((last - before[-1]) / step)
    if abs(before[-1] + count * step - last) > 1e-6:
        raise ThresherError(f"--temperatures {text}: steps of {step:g} from {before[-1]:g} do not reach {last:g}; {_EXAMPLES}")
    if count > MOST_TEMPERATURES:
        raise ThresherError(f"--temperatures {text}: {count} steps, wanted at most {MOST_TEMPERATURES}; take larger steps")
    return [round(before[-1] + step * number, 6) for number in range(1, count)]


def _misplaced_dots(text: str) -> ThresherError:
    return ThresherError(
        f"--temperatures {text}: ... wants two rising numbers before it, and one higher number after it, the last; {_EXAMPLES}"
    )
