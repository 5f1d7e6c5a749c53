"""What the servers of a run say of its model is compared with what they said when it was started."""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from helpers.fake_openai import FakeOpenAI
from helpers.runs import pool_rows
from thresher.errors import EngineError
from thresher.inputs import recipe_file
from thresher.pool.run import open_run
from thresher.running import steps
from thresher.running.progress import Progress
from thresher.running.server_notes import claims_file, note_server
from thresher.samplers.http.claims import read_claims

Write = Callable[..., Path]
CARD = {"id": "small", "root": "/models/a"}


def sample(recipe: Write, out: Path, server: FakeOpenAI, samples: int, model: dict[str, Any] | None = None) -> None:
    """Draw what a run on the server lacks."""
    engine = {"kind": "openai_http", "base_urls": [server.url]}
    sampling = {"samples_per_prompt": samples, "max_tokens": 8, "calibration": {"standard_error": 0}}
    path = recipe(engine=engine, sampling=sampling, filters=[{"name": "finished"}], model=model or {"name": "small"})
    begun = steps.begin(recipe_file.load(path), out)
    with Progress() as progress:
        steps.run_steps(begun, progress)


def notes(out: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted((out / "servers").iterdir())]


def test_a_run_notes_what_its_server_says(recipe: Write, tmp_path: Path) -> None:
    with FakeOpenAI(card={"root": "/models/a"}, weight_version="7") as server:
        sample(recipe, tmp_path / "run", server, 2)

    [noted] = notes(tmp_path / "run")
    assert (noted["model"], noted["root"], noted["weight_version"], noted["max_model_len"]) == ("small", "/models/a", "7", 1000)
    assert noted["versions"] == ["vllm 0.32.0"]


def test_a_run_is_not_continued_on_another_model_behind_the_same_name(recipe: Write, tmp_path: Path) -> None:
    """The error names the server, what it said and what it says; nothing is drawn, and what is finished stays."""
    with FakeOpenAI(card={"root": "/models/a"}) as server:
        sample(recipe, tmp_path / "run", server, 2)
    before = pool_rows(tmp_path / "run")
    expected = (
        rf"127.0.0.1:{server.port} serves another model as small than the one that samples of this run were drawn from: "
        r"root was /models/a and is now /models/b \(.*/servers/127.0.0.1_\d+-.*.json\); start it with the earlier model"
    )
    with FakeOpenAI(card={"root": "/models/b"}, port=server.port) as other, pytest.raises(EngineError, match=expected):
        sample(recipe, tmp_path / "run", other, 3)

    assert other.bodies == []
    assert pool_rows(tmp_path / "run") == before
    with FakeOpenAI(card={"root": "/models/a"}, version="0.33.0", port=server.port) as same:
        sample(recipe, tmp_path / "run", same, 3)
    assert notes(tmp_path / "run")[0]["versions"] == ["vllm 0.32.0", "vllm 0.33.0"]


def test_an_adapter_is_addressed_by_its_served_name(recipe: Write, tmp_path: Path) -> None:
    """The pool has the base model and the adapter; another adapter draws other samples."""
    with FakeOpenAI(models=("base", "tuned", "other"), card={"parent": "base"}) as server:
        for name in ("tuned", "other"):
            sample(recipe, tmp_path / name, server, 2, model={"name": "base", "adapter": name})
    tuned, other = pool_rows(tmp_path / "tuned"), pool_rows(tmp_path / "other")

    assert {body["model"] for body in server.bodies} == {"tuned", "other"}
    assert {(row["model"], row["adapter"]) for row in tuned} == {("base", "tuned")}
    assert not {row["sample_id"] for row in tuned} & {row["sample_id"] for row in other}


def test_a_note_that_cannot_be_read_is_made_again(recipe: Write, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    steps.begin(recipe_file.load(recipe()), tmp_path / "run")
    run, file = open_run(tmp_path / "run"), tmp_path / "run" / claims_file("host:1", "small")
    note_server(run, "host:1", read_claims(CARD, "vllm 1", None))
    file.write_text("torn")

    assert note_server(run, "host:1", read_claims(CARD, "vllm 2", None)) == []
    assert json.loads(file.read_text())["versions"] == ["vllm 2"]
    assert "not what a server says of its model" in caplog.text


def test_something_new_is_logged_once(recipe: Write, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    steps.begin(recipe_file.load(recipe()), tmp_path / "run")
    run = open_run(tmp_path / "run")
    with caplog.at_level(logging.INFO):
        for version in ("vllm 1", "vllm 2", "vllm 2"):
            assert note_server(run, "host:1", read_claims(CARD, version, None)) == []

    assert caplog.text.count("host:1 says something new of small") == 1
