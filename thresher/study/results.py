"""The results of a study: a row per temperature, volume and change of the prompts, hypotheses with verdicts, and a setting."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from thresher.study.bootstrap import FamilySample
from thresher.study.hypotheses import Hypothesis, hypotheses
from thresher.study.measures import Measures
from thresher.study.recommendation import recommended
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

ALL_FAMILIES = "all"
"""Name of the family that stands for all prompts together."""


@dataclass(frozen=True)
class Study:
    """The results for each family and, if there are several families, for all prompts together (the last rows of each table)."""

    prompts: int
    unit: str
    """Unit of lengths: `tokens` or `characters`."""
    temperatures: tuple[AtTemperature, ...]
    volumes: tuple[AtVolume, ...]
    changes: tuple[Change, ...]
    equivalent: tuple[Equivalent, ...]
    hypotheses: tuple[Hypothesis, ...]
    """Those of all prompts come first."""
    recommended: Mapping[str, Any]
    """Settings of the recipe, as `--set` takes them."""
    reason: str
    """Why these settings are recommended."""
    missing: tuple[str, ...]
    """Results that a reader would expect and that could not be computed, with the cause."""

    @property
    def widest(self) -> str:
        """The family that holds every prompt: `all`, or the only one."""
        return self.temperatures[-1].family

    def to_dict(self) -> dict[str, Any]:
        """The results as JSON values."""
        return asdict(self)


def results(measures: Measures, seed: int = 0, missing: Iterable[str] = ()) -> Study:
    """Compute all tables and hypotheses. `seed` is that of the bootstrap; `missing` are notes known from the recipe."""
    families = sorted(set(measures.families.tolist()))
    groups = [(family, np.flatnonzero(measures.families == family)) for family in families]
    if len(groups) > 1:
        groups.append((ALL_FAMILIES, np.arange(len(measures.prompts))))
    samples = [FamilySample(measures, family, rows, seed) for family, rows in groups]
    widest = samples[-1]
    settings, reason = recommended(widest)
    temperatures = tuple(row for sample in samples for row in at_temperatures(sample))
    return Study(
        prompts=len(measures.prompts),
        unit=measures.unit,
        temperatures=temperatures,
        volumes=tuple(row for sample in samples for row in at_volumes(sample)),
        changes=tuple(row for sample in samples for row in changes(sample)),
        equivalent=tuple(equivalent(sample) for sample in samples) if measures.changes else (),
        hypotheses=tuple(hypothesis for sample in samples[::-1] for hypothesis in hypotheses(sample)),
        recommended=settings,
        reason=reason,
        missing=(*missing, *_missing(measures, [row for row in temperatures if row.family == widest.family])),
    )


def _missing(measures: Measures, rows: list[AtTemperature]) -> Iterator[str]:
    if not measures.solutions.any():
        yield "Nothing passed at any temperature, so there are no solutions to count."
    if not all(row.judged.value == 1 for row in rows):
        yield "Some or all of the draws could not be judged: their prompts have no references, or a verifier failed."
    if not measures.near_looked:
        yield "The recipe does not look for near misses (near_miss), so their share is unknown, and valley is not judged."
    if all(row.surprisal.value is None for row in rows):
        yield "The draws have no log-probabilities."
    if not measures.changes:
        yield "There are no greedy answers to changed prompts."
    if len(measures.prompts) == 1:
        yield "There is one prompt, so there are no intervals, and no hypothesis is judged."
