"""Audit a run and write its dataset."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from prefect import flow, task
from prefect.artifacts import create_link_artifact, create_markdown_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE

from flows import reporting
from thresher.audit.count_run import Gather, here
from thresher.audit.report import write_report
from thresher.audit.show import markdown
from thresher.errors import PublishError
from thresher.pool.store import Store
from thresher.run import steps


@task(task_run_name="release", cache_policy=NO_CACHE, persist_result=False)
def release_run(root: str, gather: Gather = here) -> dict[str, Any]:
    """Audit, then write the dataset; leaves funnel, summary and a link to the report as artifacts of the flow run."""
    audit, dataset = steps.release(root, gather)
    found = audit.to_dict()
    rows = [
        {
            "filter": one["name"],
            "seen": one["seen"],
            "kept": one["kept"],
            "dropped": ", ".join(f"{reason} {count}" for reason, count in one["dropped"].items()),
            "undecided": ", ".join(f"{reason} {count}" for reason, count in one["undecided"].items()),
        }
        for one in found["filters"]
    ]
    page = write_report(Store(root), gather=gather)
    with reporting.if_it_can("artifacts of the run"):
        create_table_artifact(rows, key="thresher-funnel", description=f"What the filters of {found['name']} said")
        create_link_artifact(_address(page), link_text=f"report of {found['name']}", key="thresher-report")
        create_markdown_artifact(f"{markdown(audit)}\n\nDataset: `{dataset}`, report: `{page}`\n", key="thresher-audit")
    reporting.finished(Store(root), audit)
    return {"audit": found, "dataset": dataset, "report": page}


def _address(path: str) -> str:
    return path if "://" in path else Path(path).absolute().as_uri()


@task(task_run_name="publish", cache_policy=NO_CACHE, persist_result=False)
def publish_run(root: str) -> dict[str, Any] | None:
    """Publish the dataset to where the recipe says, if it says so; leaves what came of it as an artifact. A gate that refuses it
    fails the run, with its reasons."""
    try:
        made = steps.publish(root)
    except PublishError as error:
        reporting.refused(Store(root), error)
        raise
    if made is None:
        return None
    rows = "".join(f"| {view} | {count} |\n" for view, count in made.rows.items())
    how = f"pull request {made.request}" if made.request else f"commit `{made.commit}`" if made.commit else "was there already"
    text = f"`{made.repo}` {made.version}: {how}\n\n| config | rows |\n|---|---:|\n{rows}"
    with reporting.if_it_can("artifact of the release"):
        create_markdown_artifact(text, key="thresher-release", description=f"{made.repo} {made.version}")
    if made.commit:
        reporting.published(Store(root), made)
    return asdict(made)


@flow(name="thresher-release")
def release(root: str) -> dict[str, Any]:
    """Audit a run, write its dataset and publish it where the recipe says; returns the audit, the dataset's directory and what
    was published."""
    return release_run(root) | {"published": publish_run(root)}
