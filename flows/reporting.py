"""Events of a run, for Prefect's automations. The resource is the dataset; nothing fails when one cannot be sent."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime
from typing import Any

from prefect import get_run_logger
from prefect.events import emit_event
from prefect.settings import PREFECT_API_URL

from schemas.recipe import Recipe
from thresher.audit.compare import since
from thresher.audit.count_run import Audit
from thresher.errors import PublishError
from thresher.pool.store import Store
from thresher.releases.publish import Published
from thresher.run.progress import Progress

log = logging.getLogger(__name__)


@contextmanager
def if_it_can(what: str) -> Iterator[None]:
    """Send something to the server; where that fails it is logged, for the server's trouble is not the run's."""
    try:
        yield
    except Exception as error:  # noqa: BLE001
        log.warning("the %s did not reach the Prefect server: %r", what, error)


def finished(store: Store, found: Audit) -> None:
    """thresher.run.finished, and thresher.drift.found where filters or the pass rate differ from those of the last complete run
    of the same name beside this one."""
    low, high = found.total.interval or (None, None)
    figures = {
        "samples": found.samples,
        "hits": found.total.hits,
        "near_misses": found.kinds.get("near_miss", 0),
        "undecided": found.outcomes.get("undecided", 0),
        "pass_rate": found.total.pass_rate,
        "pass_rate_low": low,
        "pass_rate_high": high,
        "prompt_tokens": found.tokens.prompt,
        "completion_tokens": found.tokens.completion,
        "sampling_seconds": found.seconds.sampling,
        "filtering_seconds": found.seconds.filtering,
    }
    _tell("thresher.run.finished", store, figures)
    try:
        before = since(store)
    except Exception as error:  # noqa: BLE001 - a damaged run beside this one is not this one's fault
        log.warning("drift was not looked for: %s", error)
        return
    if before is not None and before.drifted:
        drifted = [one.to_dict() for one in before.found if one.drifted]
        _tell("thresher.drift.found", store, {"against": before.run, "drifted": drifted})


def sampled(store: Store, progress: Progress, slot: datetime) -> None:
    """thresher.run.sampled, and a line in the log: how long it took from the time a run was scheduled for to its first samples,
    the start of the engine apart. Nothing, where nothing was sampled. Prefect begins a run up to half a second before its slot
    (its server rounds what is left to whole seconds), which is a wait of 0."""
    times = progress.times
    if "first" not in times:
        return
    figures = {
        "waited_seconds": round(max(0.0, times["begun"] - slot.timestamp()), 3),
        "engine_seconds": round(times["warm"] - times["begun"], 3),
        "first_seconds": round(times["first"] - times["warm"], 3),
    }
    get_run_logger().info(
        "from the slot to the engine's start %.1f s, the engine %.1f s, to the first samples %.1f s", *figures.values()
    )
    _tell("thresher.run.sampled", store, {"samples": progress.samples, **figures})


def published(store: Store, made: Published) -> None:
    """thresher.release.published."""
    _tell("thresher.release.published", store, asdict(made))


def refused(store: Store, error: PublishError) -> None:
    """thresher.gate.failed, where it was a gate that refused the release."""
    if reasons := refusal(error):
        _tell("thresher.gate.failed", store, {"reasons": reasons})


def refusal(error: PublishError) -> list[str]:
    """The reasons of the gates, if they refused a release (thresher.releases.gates)."""
    first, *reasons = str(error).split("\n  ")
    return reasons if first.startswith("not released;") else []


def _tell(event: str, store: Store, payload: dict[str, Any]) -> None:
    """Send an event to the user's server. A temporary server has no automations, and is not asked."""
    if not PREFECT_API_URL.value():
        return
    with if_it_can(f"event {event}"):
        manifest = store.manifest()
        assert manifest is not None
        name = Recipe.model_validate(manifest.recipe).publish.repo or manifest.name
        resource = {"prefect.resource.id": f"thresher.dataset.{name}", "prefect.resource.name": name}
        emit_event(event, resource=resource, payload={"name": manifest.name, "run": store.root} | payload)
