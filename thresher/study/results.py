"""What a study finds: a row per temperature, volume and change of the prompts, hypotheses with verdicts, and a setting to use."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from thresher.study.bootstrap import Look
from thresher.study.hypotheses import Hypothesis, hypotheses, recommended
from thresher.study.measures import Measures
from thresher.study.result_tables import (
    AtTemperature,
    AtVolume,
    Change,
    Equivalent,
    at_temperatures,
    at_volumes,
    changes,
    equivalent,
)


@dataclass(frozen=True)
class Study:
    """All of it."""

    prompts: int
    unit: str
    temperatures: tuple[AtTemperature, ...]
    volumes: tuple[AtVolume, ...]
    changes: tuple[Change, ...]
    equivalent: tuple[Equivalent, ...]
    hypotheses: tuple[Hypothesis, ...]
    recommended: Mapping[str, Any]
    """Settings of the recipe, as `--set` takes them."""
    reason: str
    missing: tuple[str, ...]
    """What a reader would look for and not find, in words."""

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)


def findings(found: Measures, seed: int = 0, missing: Iterable[str] = ()) -> Study:
    """Work out everything, for each family and, where there are several, for all. `missing` is what is known to lack."""
    families = sorted(set(found.families.tolist()))
    groups = [(family, np.flatnonzero(found.families == family)) for family in families]
    if len(groups) > 1:
        groups.append(("all", np.arange(len(found.prompts))))
    looks = [Look(found, family, rows, seed) for family, rows in groups]
    whole = looks[-1]
    settings, reason = recommended(whole)
    temperatures = tuple(one for look in looks for one in at_temperatures(look))
    return Study(
        prompts=len(found.prompts),
        unit=found.unit,
        temperatures=temperatures,
        volumes=tuple(one for look in looks for one in at_volumes(look)),
        changes=tuple(one for look in looks for one in changes(look)),
        equivalent=tuple(equivalent(look) for look in looks) if found.changes else (),
        hypotheses=tuple(one for look in looks[::-1] for one in hypotheses(look)),
        recommended=settings,
        reason=reason,
        missing=(*missing, *_missing(found, [one for one in temperatures if one.family == whole.family])),
    )


# -- inside --------------------------------------------------------------------------------------------------------------


def _missing(found: Measures, whole: list[AtTemperature]) -> Iterator[str]:
    if not found.solutions.any():
        yield "Nothing passed at any temperature, so there are no solutions to count."
    if not all(one.judged.value == 1 for one in whole):
        yield "Some or all of the draws could not be judged: their prompts have no references, or a verifier failed."
    if not found.near_looked:
        yield "The recipe looks for no near misses (near_miss), so there is no share of them, and no valley to find."
    if all(one.surprisal.value is None for one in whole):
        yield "The draws have no log-probabilities."
    if not found.changes:
        yield "No greedy answer to a changed prompt is there."
    if len(found.prompts) == 1:
        yield "There is one prompt: there are no intervals, and no hypothesis is judged."
