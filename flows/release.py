"""Audit a run and write its dataset."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from prefect import flow, task
from prefect.artifacts import create_link_artifact, create_markdown_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE

from flows import reporting
from flows.parameters import check_places, check_roots
from thresher.auditing.audit import Audit
from thresher.auditing.pages.report import write_report
from thresher.auditing.show import markdown
from thresher.errors import PublishError
from thresher.executors.local import LocalExecutor
from thresher.pool.run import open_run
from thresher.releases.publish import Published
from thresher.running import steps
from thresher.running.progress import Progress


@task(task_run_name="release", cache_policy=NO_CACHE, persist_result=False)
def release_run(plain: steps.Plain) -> tuple[Audit, str, str]:
    """Audit, then write the dataset and the report; leaves funnel, summary and a link to the report as artifacts of the flow run.
    Returns the audit, and the locations of dataset and report."""
    run, map_shards = plain.run, steps.audit_map(plain.executor)
    audit, dataset = steps.release(run, map_shards)
    name = audit.name
    rows = [
        {
            "filter": stats.name,
            "seen": stats.seen,
            "kept": stats.kept,
            "dropped": ", ".join(f"{reason} {count}" for reason, count in stats.dropped.items()),
            "undecided": ", ".join(f"{reason} {count}" for reason, count in stats.undecided.items()),
        }
        for stats in audit.filters
    ]
    report = write_report(run, map_shards=map_shards)
    with reporting.if_it_can("artifacts of the run"):
        create_table_artifact(rows, key="thresher-funnel", description=f"The funnel of {name}, filter by filter")
        create_link_artifact(_address(report), link_text=f"report of {name}", key="thresher-report")
        create_markdown_artifact(f"{markdown(audit)}\n\nDataset: `{dataset}`, report: `{report}`\n", key="thresher-audit")
    reporting.finished(run, audit)
    return audit, dataset, report


def _address(path: str) -> str:
    return path if "://" in path else Path(path).absolute().as_uri()


@task(task_run_name="publish", cache_policy=NO_CACHE, persist_result=False)
def publish_run(plain: steps.Plain) -> Published | None:
    """Publish the dataset to the repository that the recipe names, if it names one; leaves the release as an artifact. If a gate
    refuses it, the flow run fails with the gate's reasons."""
    run = plain.run
    try:
        published = steps.publish_run(run)
    except PublishError as error:
        reporting.refused(run, error)
        raise
    if published is None:
        return None
    rows = "".join(f"| {view} | {count} |\n" for view, count in published.rows.items())
    how = "was there already"
    if published.request:
        how = f"pull request {published.request}"
    elif published.commit:
        how = f"commit `{published.commit}`"
    text = f"`{published.repo}` {published.version}: {how}\n\n| config | rows |\n|---|---:|\n{rows}"
    with reporting.if_it_can("artifact of the release"):
        create_markdown_artifact(text, key="thresher-release", description=f"{published.repo} {published.version}")
    if published.commit:
        reporting.published(run, published)
    return published


@flow(name="thresher-release")
def release(root: str) -> dict[str, Any]:
    """Audit a run, write its dataset and publish it to the repository of its recipe; returns the audit, the directory of the
    dataset, the report and the release."""
    check_roots(root)
    run = open_run(root)
    check_places(run.recipe, run.base)
    with LocalExecutor(0) as executor:
        plain = steps.Plain(run, Progress(), executor)
        released = release_run(plain)
        return results(*released, publish_run(plain))


def results(audit: Audit, dataset: str, report: str, published: Published | None) -> dict[str, Any]:
    """Return what a flow returns, as JSON values."""
    return {
        "audit": audit.to_dict(),
        "dataset": dataset,
        "report": report,
        "published": None if published is None else asdict(published),
    }
