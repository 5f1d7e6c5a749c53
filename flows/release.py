"""Audit a run and write its dataset."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from prefect import flow, task
from prefect.artifacts import create_link_artifact, create_markdown_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE

from flows import reporting
from thresher.audit.audit import Audit
from thresher.audit.pages.report import write_report
from thresher.audit.show import markdown
from thresher.errors import PublishError
from thresher.executors.executor import Executor
from thresher.pool.run import Run, open_run
from thresher.releases.publish import Published
from thresher.run import steps


class Opaque:
    """A run as a task's argument: Prefect looks into dataclasses for futures, and leaves this alone."""

    def __init__(self, run: Run) -> None:
        self.run = run


@task(task_run_name="release", cache_policy=NO_CACHE, persist_result=False)
def release_run(opaque: Opaque, executor: Executor | None = None) -> tuple[Audit, str, str]:
    """Audit, then write the dataset and the report; leaves funnel, summary and a link to the report as artifacts of the flow run.
    Returns the audit, and where dataset and report are."""
    run, map_shards = opaque.run, None if executor is None else steps.audit_map(executor)
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
def publish_run(opaque: Opaque) -> Published | None:
    """Publish the dataset to where the recipe says, if it says so; leaves the release as an artifact. A gate that refuses it fails
    the flow run, with its reasons."""
    run = opaque.run
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
    """Audit a run, write its dataset and publish it where the recipe says; returns the audit, the dataset's directory, the report
    and what was published."""
    opaque = Opaque(open_run(root))
    audit, dataset, report = release_run(opaque)
    published = publish_run(opaque)
    return {
        "audit": audit.to_dict(),
        "dataset": dataset,
        "report": report,
        "published": None if published is None else asdict(published),
    }
