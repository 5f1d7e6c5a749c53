"""Models are compared on the same held-out prompts."""

import pytest

from helpers import known
from thresher.study.training import comparison
from thresher.study.training.comparison import Outcomes, Tally, Training

ARMS = (comparison.BEFORE, comparison.ONE_ANSWER, comparison.MANY_ANSWERS, comparison.NEAR_MISSES)
BEFORE, ONE_ANSWER, MANY_ANSWERS, NEAR_MISSES = ARMS


def tally(passed: int, texts: int, prompts: int = 20) -> Tally:
    """Each prompt has 4 judged draws, of which some passed, with some different texts."""
    return {f"prompt {number}": (4, passed, texts) for number in range(prompts)}


def training(*outcomes: Outcomes) -> Training:
    return comparison.compared(outcomes, held=20, trained_on=20, samples=4, settings={})


def test_differences_are_those_of_pass_rates_and_texts() -> None:
    result = training(
        Outcomes(BEFORE, 0, 0, tally(1, 1)),
        Outcomes(ONE_ANSWER, 20, 60, tally(1, 1)),
        Outcomes(MANY_ANSWERS, 50, 60, tally(3, 2)),
        Outcomes(NEAR_MISSES, 30, 90, tally(2, 2)),
    )

    assert result.ks == (1, 4)
    assert [arm.pass_at_k[0].value for arm in result.arms] == [0.25, 0.25, 0.75, 0.5]
    differences = {(row.of, row.less): (known(row.pass_at_k[0].value), row.distinct.value) for row in result.differences}
    assert differences == {
        (ONE_ANSWER, BEFORE): (0.0, 0.0),
        (MANY_ANSWERS, BEFORE): (0.5, 1.0),
        (MANY_ANSWERS, ONE_ANSWER): (0.5, 1.0),
        (NEAR_MISSES, BEFORE): (0.25, 1.0),
        (NEAR_MISSES, MANY_ANSWERS): (-0.25, 0.0),
    }


@pytest.mark.parametrize(
    ("passed", "conclusion"),
    [(3, "did better on held-out prompts than one"), (0, "did worse"), (1, "cannot be distinguished from one")],
)
def test_the_conclusion_follows_from_the_interval(passed: int, conclusion: str) -> None:
    result = training(
        Outcomes(BEFORE, 0, 0, tally(1, 1)),
        Outcomes(ONE_ANSWER, 20, 60, tally(1, 1)),
        Outcomes(MANY_ANSWERS, 50, 60, tally(passed, 1)),
    )

    assert conclusion in result.says


def test_one_prompt_is_too_few_to_conclude() -> None:
    result = training(*(Outcomes(name, 1, 1, tally(1, 1, prompts=1)) for name in (BEFORE, ONE_ANSWER, MANY_ANSWERS)))

    assert result.says == "There are too few prompts to compare many answers with one."
