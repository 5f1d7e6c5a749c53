"""The temperature and the number of samples that follow from a study."""

from typing import Any

from thresher.study.bootstrap import FamilySample
from thresher.study.hypotheses import rivals_of

WORTH = 0.1
"""Share of solutions that twice the draws must add to be recommended."""


def recommended(sample: FamilySample) -> tuple[dict[str, Any], str]:
    """Return settings of a recipe, as `--set` takes them, and the reason for them; no settings where no draw passed.

    The temperature is 1, unless another one beats it by the interval of its yield at all draws. The number of samples is the
    smallest for which twice as many bring less than a tenth more solutions.
    """
    if not sample.measures.solutions[sample.rows, 1:].any():
        return {}, "nothing passed, so no setting is better than another"
    volumes, most = sample.measures.volumes, len(sample.measures.volumes) - 1
    beaten_by = rivals_of(sample, sample.t_1, most).beaten_by
    t = max(beaten_by, key=lambda rival: sample.yield_value(rival, most)) if beaten_by else sample.t_1
    k = _enough(sample, t)
    temperature, draws = float(sample.temperatures[t]), volumes[k]
    settings: dict[str, Any] = {"sampling.temperature": temperature, "sampling.samples_per_prompt": draws}
    if temperature != 1:
        settings["sampling.calibration.expect"] = "declared"
    reason = (
        f"of the temperatures that yield more solutions per token than 1, {temperature:g} yields the most"
        if beaten_by
        else "no other temperature yields more solutions per token by its interval"
    )
    if k == most:
        return settings, f"{reason}; the last half of the {draws} draws still brought a tenth more solutions: take more"
    reason += f"; {2 * draws} draws of a prompt have less than a tenth more solutions than {draws}"
    if better := rivals_of(sample, t, k).beaten_by:
        best = max(better, key=lambda rival: sample.yield_value(rival, k))
        best_yield, own_yield = sample.yield_value(best, k), sample.yield_value(t, k)
        yields = f"{best_yield:.2f} per 1,000 {sample.measures.unit}, {own_yield:.2f} at {temperature:g}"
        reason += f". At {draws} draws {sample.temperatures[best]:g} yields more per token ({yields})"
    return settings, reason


def _enough(sample: FamilySample, t: int) -> int:
    """Index of the smallest volume whose double brings less than a tenth more solutions; of the largest where none does."""
    volumes = sample.measures.volumes
    totals = [float(sample.solutions(t, k).sum()) for k in range(len(volumes))]
    for k, draws in enumerate(volumes):
        if 2 * draws in volumes and totals[volumes.index(2 * draws)] < (1 + WORTH) * totals[k]:
            return k
    return len(volumes) - 1
