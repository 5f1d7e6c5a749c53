"""Gates: the reasons why a run must not be released."""

from pathlib import Path

from schemas.dataset import GatesSpec
from schemas.release import RepositoryManifest
from thresher.auditing.audit import Audit
from thresher.auditing.compare import Since
from thresher.errors import PublishError, RecipeError
from thresher.judging.check import check_golds
from thresher.pool.run import Run


def gates(run: Run, audit: Audit, limits: GatesSpec) -> list[str]:
    """Return the reasons in the run itself. The verifiers are tested once more on references of its prompts."""
    reasons = list(audit.problems)
    if limits.calibration:
        reasons += audit.calibration_faults
    if limits.calibration == "tested":
        untested = [f"calibration: {test.source}: {test.status}" for test in audit.calibration if not test.tested]
        reasons += untested if audit.calibration else ["calibration: not tested: no tokens were calibrated"]
    if limits.self_check:
        reasons += audit.alarms
        if audit.origin == "sampled":
            try:
                check_golds(run)
            except RecipeError as error:
                reasons += str(error).split("\n  ")[1:] or [str(error)]
    if audit.total.hits < limits.hits:
        reasons.append(f"{audit.total.hits} hits, fewer than {limits.hits}; --gate hits=0 releases a run without hits")
    undecided = audit.outcomes.get("undecided", 0) / max(1, audit.samples)
    if undecided > limits.undecided:
        reasons.append(f"{undecided:.1%} of the samples are undecided, more than {limits.undecided:.1%}")
    return reasons


def drifted(drift: Since | None, limits: GatesSpec) -> list[str]:
    """Return the shares that differ from those of the run before it."""
    if drift is None or limits.drift == "allow":
        return []
    return [f"drift since {Path(drift.run).name} (begun {drift.begun[:19]}): {share}" for share in drift.drifted]


def against(audit: Audit, manifest: RepositoryManifest, limits: GatesSpec) -> list[str]:
    """Return the reasons in a comparison with the last release of the same recipe."""
    releases = [part for release in manifest.releases for part in release.merged or (release,)]
    last = next((release for release in reversed(releases) if release.name == audit.name), None)
    if last is None:
        return []
    now, reasons = figures(audit), []
    for name, drop in (("pass_rate", limits.pass_rate_drop), ("effective_solutions", limits.diversity_drop)):
        before, after = last.figures.get(name), now[name]
        if before and after is not None and after < before * (1 - drop):
            reasons.append(f"{name} fell from {before:.4g} ({last.version}) to {after:.4g}, by more than {drop:.0%}")
    return reasons


def stop_where_refused(reasons: list[str], force: str | None, who: str) -> tuple[str, ...]:
    """Return what the card notes of a forced release: who forced it, and the reasons. Raises PublishError if there are reasons
    and the release is not forced."""
    if reasons and force is None:
        advice = "not released; --force REASON releases it all the same and notes the reason on the card:"
        raise PublishError("\n  ".join([advice, *dict.fromkeys(reasons)]))
    return (f"{who}, knowing what follows: {force}", *dict.fromkeys(reasons)) if reasons and force is not None else ()


def figures(audit: Audit) -> dict[str, float | None]:
    """Return the figures that a release's entry notes of its run."""
    diversity = audit.diversity[-1] if audit.diversity else None
    low, high = audit.total.interval or (None, None)
    return {
        "samples": audit.samples,
        "prompts": audit.total.prompts,
        "hits": audit.total.hits,
        "pass_rate": audit.total.pass_rate,
        "pass_rate_low": low,
        "pass_rate_high": high,
        "undecided": audit.outcomes.get("undecided", 0) / max(1, audit.samples),
        "hits_per_prompt": diversity.hits_per_prompt if diversity else None,
        "effective_solutions": diversity.effective_solutions if diversity else None,
        "near_miss_share": diversity.near_miss_share if diversity else None,
        "completion_tokens": audit.tokens.completion,
        "device_seconds": audit.seconds.devices,
    }
