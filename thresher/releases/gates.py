"""Gates: why a run must not be released."""

from pathlib import Path

from schemas.dataset import GatesSpec
from schemas.release import RepositoryManifest
from thresher.audit.audit import Audit
from thresher.audit.compare import Since
from thresher.errors import PublishError, RecipeError
from thresher.judging.check import check_golds
from thresher.pool.run import Run


def gates(run: Run, found: Audit, limits: GatesSpec) -> list[str]:
    """Reasons in the run itself. The verifiers are tried once more on references of its prompts."""
    reasons = list(found.problems)
    if limits.calibration:
        reasons += found.calibration_faults
    if limits.self_check:
        reasons += found.alarms
        if found.origin == "sampled":
            try:
                check_golds(run)
            except RecipeError as error:
                reasons += str(error).split("\n  ")[1:]
    undecided = found.outcomes.get("undecided", 0) / max(1, found.samples)
    if undecided > limits.undecided:
        reasons.append(f"{undecided:.1%} of the samples are undecided, more than {limits.undecided:.1%}")
    return reasons


def drifted(found: Since | None, limits: GatesSpec) -> list[str]:
    """Reasons in the run before it."""
    if found is None or limits.drift == "allow":
        return []
    return [f"drift since {Path(found.run).name} (begun {found.begun[:19]}): {one}" for one in found.drifted]


def against(found: Audit, there: RepositoryManifest, limits: GatesSpec) -> list[str]:
    """Reasons in the figures of the last release of the same recipe."""
    every = [merged for one in there.releases for merged in (one.merged or (one,))]
    last = next((one for one in reversed(every) if one.name == found.name), None)
    if last is None:
        return []
    now, reasons = figures(found), []
    for name, drop in (("pass_rate", limits.pass_rate_drop), ("effective_solutions", limits.diversity_drop)):
        before, after = last.figures.get(name), now[name]
        if before and after is not None and after < before * (1 - drop):
            reasons.append(f"{name} fell from {before:.4g} ({last.version}) to {after:.4g}, by more than {drop:.0%}")
    return reasons


def stop_where_refused(reasons: list[str], force: str | None, who: str) -> tuple[str, ...]:
    """What the card will say of a release that is forced. Raises PublishError where there are reasons and it is not."""
    if reasons and force is None:
        raise PublishError(
            "\n  ".join(["not released; --force REASON does it all the same and says so on the card:", *dict.fromkeys(reasons)])
        )
    return (f"{who}, knowing what follows: {force}", *dict.fromkeys(reasons)) if reasons and force is not None else ()


def figures(found: Audit) -> dict[str, float | None]:
    """What a release's entry says of its run."""
    diversity = found.diversity[-1] if found.diversity else None
    low, high = found.total.interval or (None, None)
    return {
        "samples": found.samples,
        "prompts": found.total.prompts,
        "hits": found.total.hits,
        "pass_rate": found.total.pass_rate,
        "pass_rate_low": low,
        "pass_rate_high": high,
        "undecided": found.outcomes.get("undecided", 0) / max(1, found.samples),
        "hits_per_prompt": diversity.hits_per_prompt if diversity else None,
        "effective_solutions": diversity.effective_solutions if diversity else None,
        "near_miss_share": diversity.near_miss_share if diversity else None,
        "completion_tokens": found.tokens.completion,
        "device_seconds": found.seconds.devices,
    }
