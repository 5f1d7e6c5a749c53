"""Audit a run and write its dataset."""

from typing import Any

from prefect import flow, task
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE

from thresher import steps
from thresher.audit.show import markdown


@task(task_run_name="release", cache_policy=NO_CACHE, persist_result=False)
def release_run(root: str) -> dict[str, Any]:
    """Audit, then write the dataset; leaves the funnel as artifacts of the flow run."""
    audit, dataset = steps.release(root)
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
    create_table_artifact(rows, key="thresher-funnel", description=f"What the filters of {found['name']} said")
    create_markdown_artifact(f"{markdown(audit)}\n\nDataset: `{dataset}`\n", key="thresher-audit")
    return {"audit": found, "dataset": dataset}


@flow(name="thresher-release")
def release(root: str) -> dict[str, Any]:
    """Audit a run and write its dataset; returns the audit and the dataset's directory."""
    return release_run(root)
