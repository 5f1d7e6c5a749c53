"""The flows under a real Prefect server."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

from helpers import known
from helpers.prefect_server import last_flow_run, task_runs

Write = Callable[..., Path]


@pytest.mark.slow
@pytest.mark.usefixtures("prefect_server")
def test_the_pipeline_has_one_task_run_per_shard_and_stage(recipe: Write, tmp_path: Path) -> None:
    """Two shards: two task runs of sample, two of winnow, one each of corpus and release; the funnel is an artifact."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId

    from flows.pipeline import pipeline

    wanted = ["release", "sample-0", "sample-1", "winnow-0", "winnow-1", "winnow-corpus"]
    found = pipeline(str(recipe()), out=str(tmp_path / "run"))

    with get_client(sync_client=True) as client:
        flow_run = last_flow_run(client)
        names = task_runs(client, flow_run.id, set(wanted))
        own = ArtifactFilterFlowRunId(any_=[flow_run.id])
        artifacts = {
            artifact.key: artifact for artifact in client.read_artifacts(artifact_filter=ArtifactFilter(flow_run_id=own))
        }
    funnel, progress, link = (artifacts[f"thresher-{name}"] for name in ("funnel", "progress", "report"))
    assert names == wanted
    assert found["audit"]["outcomes"] == {"keep": 4, "drop": 12, "undecided": 0}
    rows: Any = json.loads(funnel.data) if isinstance(funnel.data, str) else funnel.data
    assert [row["filter"] for row in rows] == ["finished", "exact_answer", "near_duplicate"]
    assert (tmp_path / "run" / "report.html").as_uri() in str(link.data)
    assert found["report"] == str(tmp_path / "run" / "report.html")
    assert progress.data == 100
    assert str(progress.description).startswith("20 of 20 samples (100 %)")
    assert "4 hits" in str(progress.description)


@pytest.mark.slow
@pytest.mark.usefixtures("prefect_server")
def test_duplicates_through_files_are_task_runs_of_their_own(recipe: Write, tmp_path: Path) -> None:
    """With more samples than fit in memory each part of the search is a task run, with the same result."""
    from prefect.client.orchestration import get_client

    from flows.pipeline import pipeline

    path = str(recipe(filters=[{"name": "finished"}]))
    rows = [json.loads(line) for line in (tmp_path / "answers.jsonl").read_text().splitlines()]
    said = ["One answer that very many of the prompts are given again.", "And quite another one, in altogether different words."]
    rows = [row | {"completion": said[at % 2], "finish_reason": "stop"} for at, row in enumerate(rows)]
    (tmp_path / "answers.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    overrides = ["dedupe={run_characters: 0, guard: none}", "run.filter_workers=2"]
    plain = pipeline(path, overrides, out=str(tmp_path / "plain"))
    found = pipeline(path, [*overrides, "run.dedupe_gib=0.000001"], out=str(tmp_path / "files"))

    with get_client(sync_client=True) as client:
        flow_run = last_flow_run(client)
        wanted = {"sign_shard-0", "sign_shard-1", "join-0", "join-24", "unite-0", "gather-0", "write_verdicts-1"}
        names = task_runs(client, flow_run.id, wanted)
    assert wanted <= set(names)
    plain_verdicts, verdicts = (
        [
            pq.read_table(file).drop_columns(["filter_key"]).to_pylist()
            for file in sorted((tmp_path / entry).glob("corpus/*.parquet"))
        ]
        for entry in ("plain", "files")
    )
    assert verdicts == plain_verdicts
    assert found["audit"]["kinds"] == plain["audit"]["kinds"]
    assert found["audit"]["kinds"]["hit"] == 2


@pytest.mark.slow
@pytest.mark.usefixtures("prefect_server")
def test_a_run_is_published_or_fails_with_the_reasons_of_its_gates(recipe: Write, tmp_path: Path) -> None:
    """Two runs append two releases; the third fails at its gate, and the fourth, with another gate, is published."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey

    from flows.pipeline import pipeline
    from thresher.errors import PublishError
    from thresher.releases.repository import releases

    path, repo = str(recipe()), str(tmp_path / "released")
    overrides = [f"publish.repo={repo}", "publish.versions=semantic", "publish.gates.self_check=false"]
    made = [pipeline(path, overrides, out=str(tmp_path / salt), salt=salt)["published"] for salt in ("one", "two")]
    assert [entry["version"] for entry in made] == ["v1.0.0", "v1.1.0"]
    assert pipeline(path, overrides, out=str(tmp_path / "two"), salt="two")["published"] == made[1] | {"commit": None}

    strict = [*overrides, "filters=[{name: finished}, {name: exact_answer}, {name: majority}]", "publish.gates.undecided=0.0"]
    with pytest.raises(PublishError, match="of the samples are undecided, more than"):
        pipeline(path, strict, out=str(tmp_path / "three"), salt="three")
    with get_client(sync_client=True) as client:
        last = last_flow_run(client)
        shown = client.read_artifacts(artifact_filter=ArtifactFilter(key=ArtifactFilterKey(any_=["thresher-release"])))
    state = known(last.state)
    assert state.is_failed()
    assert "undecided, more than" in str(state.message)
    assert {
        version for version in ("v1.0.0", "v1.1.0") if any(f"`{repo}` {version}" in str(artifact.data) for artifact in shown)
    } == {
        "v1.0.0",
        "v1.1.0",
    }
    assert [release.version for release in releases(repo).releases] == ["v1.0.0", "v1.1.0"]
    assert pipeline(path, [*strict[:-1], "publish.gates.undecided=1.0"], out=str(tmp_path / "three"), salt="three")["published"]


@pytest.mark.slow
@pytest.mark.usefixtures("prefect_server")
def test_the_stages_are_flows_of_their_own(recipe: Write, tmp_path: Path) -> None:
    """Generate, then winnow, then release: the same run as the pipeline's."""
    from flows.generate import generate
    from flows.judge import winnow
    from flows.release import release

    root = generate(str(recipe()), str(tmp_path / "run"))
    winnow(root, workers=0)
    found = release(root)

    assert found["audit"]["outcomes"] == {"keep": 4, "drop": 12, "undecided": 0}
    assert (tmp_path / "run/dataset/README.md").exists()


@pytest.mark.slow
@pytest.mark.usefixtures("prefect_server")
def test_an_engine_failure_is_tried_again_and_bad_input_is_not(
    recipe: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The engine fails once; the table that lacks a prompt fails for good."""
    from flows.pipeline import pipeline
    from thresher.errors import EngineError, SourceError
    from thresher.samplers.replay import ReplaySampler

    calls = []
    real = ReplaySampler.stream

    def fails_once(self, priority: Any) -> Any:  # type: ignore[no-untyped-def]
        calls.append(priority)
        if len(calls) == 1:
            raise EngineError("the engine died")
        return real(self, priority)

    monkeypatch.setattr(ReplaySampler, "stream", fails_once)
    pipeline(str(recipe()), out=str(tmp_path / "run"))
    assert len(calls) == 3

    calls.clear()
    path = recipe()
    (tmp_path / "answers.jsonl").write_text('{"prompt": "Capital of France?", "completion": "Paris"}\n')
    calls.append(0)
    with pytest.raises(SourceError, match="no completion for the prompt 'Capital of"):
        pipeline(str(path), out=str(tmp_path / "other"))
    assert len(calls) <= 3


@pytest.mark.slow
def test_every_shipped_recipe_has_a_deployment() -> None:
    """Its entrypoint and its recipe exist."""
    from importlib import import_module

    deployments = yaml.safe_load(Path("prefect.yaml").read_text())["deployments"]
    recipes = {deployment["parameters"]["recipe"] for deployment in deployments}

    assert recipes == {str(path) for path in Path("data/recipes").glob("*.yaml")}
    for deployment in deployments:
        file, _, name = deployment["entrypoint"].partition(":")
        assert callable(getattr(import_module(file.removesuffix(".py").replace("/", ".")), name))
