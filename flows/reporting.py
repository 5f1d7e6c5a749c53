"""Events of a run, for Prefect's automations. Their resource is the dataset. A run never fails because of an event."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime
from typing import Any

from prefect import get_run_logger
from prefect.events import emit_event
from prefect.settings import PREFECT_API_URL

from flows import temporary_server
from thresher.auditing.audit import Audit
from thresher.auditing.compare import since
from thresher.errors import PublishError
from thresher.pool.run import Run
from thresher.releases.publish import Published
from thresher.running.progress import Progress

log = logging.getLogger(__name__)


@contextmanager
def if_it_can(what: str) -> Iterator[None]:
    """Log an error of the block instead of raising it: a failure of the server is not a failure of the run. A temporary server
    that fails once is not asked again; `run_here` says so at the end."""
    try:
        yield
    except Exception as error:  # noqa: BLE001
        if PREFECT_API_URL.value():
            log.warning("the %s did not reach the Prefect server: %r", what, error)
        else:
            temporary_server.abandon()


def finished(run: Run, audit: Audit) -> None:
    """Send thresher.run.finished; and thresher.drift.found if filters or the pass rate differ from those of the last complete run
    of the same name in the same folder."""
    low, high = audit.total.interval or (None, None)
    figures = {
        "samples": audit.samples,
        "hits": audit.total.hits,
        "near_misses": audit.kinds.get("near_miss", 0),
        "undecided": audit.outcomes.get("undecided", 0),
        "pass_rate": audit.total.pass_rate,
        "pass_rate_low": low,
        "pass_rate_high": high,
        "prompt_tokens": audit.tokens.prompt,
        "completion_tokens": audit.tokens.completion,
        "sampling_seconds": audit.seconds.sampling,
        "filtering_seconds": audit.seconds.filtering,
    }
    _send("thresher.run.finished", run, figures)
    try:
        before = since(run)
    except Exception as error:  # noqa: BLE001 - a damaged neighbour is not this run's fault
        log.warning("drift was not tested: %s", error)
        return
    if before is not None and before.drifted:
        drifted = [share.to_dict() for share in before.shares if share.drifted]
        _send("thresher.drift.found", run, {"against": before.run, "drifted": drifted})


def sampled(run: Run, progress: Progress, slot: datetime) -> None:
    """Send thresher.run.sampled, and log the same figures: the seconds from the time that a run was scheduled for to its first
    samples, with the start of the engine counted separately. Does nothing if nothing was sampled. Prefect starts a run up to half
    a second before its slot, because its server rounds to whole seconds; that is a wait of 0."""
    times = progress.times
    if "first" not in times:
        return
    figures = {
        "waited_seconds": round(max(0.0, times["begun"] - slot.timestamp()), 3),
        "engine_seconds": round(times["warm"] - times["begun"], 3),
        "first_seconds": round(times["first"] - times["warm"], 3),
    }
    get_run_logger().info(
        "%.1f s from the slot to the start of the engine, %.1f s to start it, %.1f s to the first samples", *figures.values()
    )
    _send("thresher.run.sampled", run, {"samples": progress.samples, **figures})


def published(run: Run, release: Published) -> None:
    """Send thresher.release.published."""
    _send("thresher.release.published", run, asdict(release))


def refused(run: Run, error: PublishError) -> None:
    """Send thresher.gate.failed if a gate refused the release."""
    if reasons := refusal(error):
        _send("thresher.gate.failed", run, {"reasons": reasons})


def refusal(error: PublishError) -> list[str]:
    """Return the reasons of the gates, or none if another error stopped the release (thresher.releases.gates)."""
    first, *reasons = str(error).split("\n  ")
    return reasons if first.startswith("not released;") else []


def _send(event: str, run: Run, payload: dict[str, Any]) -> None:
    """Send an event to the user's server. A temporary server has no automations and gets none."""
    if not PREFECT_API_URL.value():
        return
    with if_it_can(f"event {event}"):
        name = run.recipe.publish.repo or run.manifest.name
        resource = {"prefect.resource.id": f"thresher.dataset.{name}", "prefect.resource.name": name}
        emit_event(event, resource=resource, payload={"name": run.manifest.name, "run": run.root} | payload)
