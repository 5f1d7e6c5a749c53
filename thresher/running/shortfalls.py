"""What the exit of a finished run says besides its audit: why it is not to be relied on, and what is left out of it."""

from schemas.recipe import Recipe
from thresher.auditing.audit import Audit
from thresher.auditing.show import number
from thresher.dataset.write import card_changed
from thresher.pool import judged
from thresher.pool.run import Run
from thresher.pool.store import shard_name

ALWAYS = ("sft", "rollouts")
"""Views that are to have rows whether the recipe names them or not; of the others, those that it names."""


def shortfalls(run: Run, audit: Audit) -> list[str]:
    """Reasons why a finished run is not to be relied on, in words: no hits, views without rows, alarms, failed calibration."""
    faults = []
    greedy_only = audit.anchors > 0 and not audit.samples  # samples_per_prompt: 0
    if not audit.total.hits and not greedy_only:
        faults.append(f"no hits: none of {number(audit.samples, ',')} samples passed every filter")
    empty = [view for view in _empty_views(run) if _names_views(run.recipe) or (view in ALWAYS and not greedy_only)]
    if empty and (audit.total.hits or empty != ["sft"]):
        faults.append(f"views without rows: {', '.join(empty)}")
    if audit.not_sampled and (prompts := _to_be_tried_again(run)):
        faults.append(f"{number(prompts, ',')} prompts lack samples that could not be drawn; `{run.command}` tries them again")
    count = len(audit.alarms) + len(audit.calibration_faults)
    if count:
        faults.append(f"{count} alarm{'s' if count > 1 else ''}, see above")
    return faults


def notes(run: Run, audit: Audit) -> list[str]:
    """What is left out of a run that may be relied on, in words: samples that could not be drawn, views without rows."""
    lines = []
    if undrawn := sum(audit.not_sampled.values()):
        lines.append(
            f"{number(undrawn, ',')} samples could not be drawn and are undecided (see above); `{run.command}` tries them again, "
            "those of refused prompts once what decides it has changed"
        )
    if audit.broken:
        lines.append(
            f"{number(audit.broken, ',')} verdicts are undecided because something was broken (`detail` says what); "
            f"`{run.command}` asks again"
        )
    if card_changed(run):
        card = run.store.path("dataset/README.md")
        lines.append(
            f"{card}: changed since it was written, by hand or by damage; it is kept; remove it to have it written again"
        )
    empty = [view for view in _empty_views(run) if view not in ALWAYS and not _names_views(run.recipe)]
    return [*lines, f"views without rows, which are left out: {', '.join(empty)}"] if empty else lines


def _to_be_tried_again(run: Run) -> int:
    """The prompts with samples that could not be drawn, and that are tried again whatever has changed."""
    count = 0
    for shard in judged.sampled(run.store):
        entry = run.store.entry(f"samples/{shard_name(shard)}")
        undrawn = {} if entry is None else entry.facts.get("undrawn", {})
        count += sum(not decided for prompts in undrawn.values() for decided in prompts.values())
    return count


def views_of(run: Run) -> dict[str, int]:
    """The rows of each view of a finished dataset that has any, the default one first."""
    entry = run.store.entry("dataset")
    rows: dict[str, int] = {} if entry is None else entry.facts["views"]
    return {view: count for view, count in rows.items() if count}


def _names_views(recipe: Recipe) -> bool:
    return "views" in recipe.dataset.model_fields_set


def _empty_views(run: Run) -> list[str]:
    """The views of the recipe that have no rows in its finished dataset."""
    rows = views_of(run)
    return [view for view in run.recipe.dataset.views if view not in rows]
