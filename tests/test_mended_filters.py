"""Verdicts that were undecided because something was broken are asked for again once it is mended; the others stay."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from filters.supervise import worker
from helpers.fake_openai import FakeOpenAI
from schemas.manifest import seal
from thresher.auditing.count_run import count
from thresher.inputs import recipe_file
from thresher.judging import winnow
from thresher.pool import judged
from thresher.pool.run import Run
from thresher.pool.store import Store
from thresher.running import steps
from thresher.running.progress import Progress
from thresher.running.shortfalls import notes

FRAGILE = """
import os, time
from pathlib import Path
from pydantic import BaseModel
from filters.base import Filter, Role, Scope
from filters.judging import one_by_one
from schemas.sample import Verdict

class Config(BaseModel):
    folder: str

def build(config):
    broken = Path(config.folder, "broken")
    def judge(sample):
        with open(Path(config.folder, "asked"), "a") as file:
            file.write(sample.completion + "\\n")
        if sample.completion == "compute":
            while True: pass
        if sample.completion == "unknown":
            return Verdict.undecided("unparsed")
        if broken.exists():
            if sample.completion == "die":
                os._exit(9)
            if sample.completion == "wait":
                time.sleep(600)
            if sample.completion == "import":
                import no_such_package
        return Verdict.keep()
    return Filter("fragile", "1", Scope.SAMPLE, Role.VERIFIER, one_by_one(judge, ("completion",)), ("completion",))
"""


def filtered(folder: Path, filters: list[dict[str, Any]], texts: list[str]) -> Run:
    """`thresher filter` in this process; the same call again is the next run."""
    (folder / "recipe.yaml").write_text(
        yaml.safe_dump({"name": "mended", "filters": filters, "dedupe": None, "near_miss": None, "run": {"filter_workers": 0}})
    )
    (folder / "samples.jsonl").write_text("".join(json.dumps({"prompt": "p", "completion": text}) + "\n" for text in texts))
    begun = steps.begin_brought(recipe_file.load(folder / "recipe.yaml"), folder / "samples.jsonl", folder / "run")
    if steps.finished(begun) is None:
        steps.run_steps(begun, Progress())
    return begun.run


def reasons(run: Run) -> list[str]:
    """The reason of each sample, empty where it was kept."""
    return [reason for shard in judged.each_judged(run.store) for reason in shard["reason"].to_pylist()]


@pytest.mark.slow
def test_a_mended_filter_is_asked_again_for_what_was_broken_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its process died, it waited for something, a package was not installed. What its sample is to blame for stays."""
    (tmp_path / "fragile.py").write_text(FRAGILE)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(worker, "BUSY", 0.1)  # other processes of the machine may take the rest
    texts = ["fine", "compute", "unknown", "die", "wait", "import"]
    inside = {"build": "fragile:build", "parameters": {"folder": str(tmp_path)}, "seconds": 0.4}
    filters = [{"name": "python", "parameters": inside}]
    broken, asked = tmp_path / "broken", tmp_path / "asked"

    broken.touch()
    run = filtered(tmp_path, filters, texts)

    assert reasons(run) == ["", "timeout", "unparsed", "crash", "timeout", "filter_error"]
    assert count(run).filters[-1].broken == count(run).broken == winnow.unjudged(run, [0]).broken == 3
    assert "3 verdicts are undecided because something was broken" in notes(run, count(run))[0]
    before = run.store.entry("dataset")

    broken.unlink()
    asked.unlink()
    run = filtered(tmp_path, filters, texts)

    assert reasons(run) == ["", "timeout", "unparsed", "", "", ""]
    assert set(asked.read_text().split()) == {"die", "wait", "import"}
    assert count(run).broken == winnow.unjudged(run, [0]).broken == 0
    assert run.store.entry("dataset") != before

    asked.unlink()
    filtered(tmp_path, filters, texts)

    assert not asked.exists()


FAILING = """
import time
from pydantic import BaseModel
from filters.base import Filter, Role, Scope
from filters.judging import one_by_one

class Config(BaseModel):
    pass

def build(config):
    def judge(sample):
        raise RuntimeError(f"at {time.time_ns()}")
    return Filter("failing", "1", Scope.SAMPLE, Role.VERIFIER, one_by_one(judge, ("completion",)), ("completion",))
"""


def test_verdicts_that_stay_broken_leave_all_files_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each run asks again and gets another wording of the same error. Entries of an earlier version do not note how many verdicts
    are broken; they are asked again too."""
    (tmp_path / "failing.py").write_text(FAILING)
    monkeypatch.syspath_prepend(str(tmp_path))
    filters: list[dict[str, Any]] = [{"name": "failing:build"}]

    run = filtered(tmp_path, filters, ["a", "b"])
    entries = [run.store.entry(name) for name in ("verdicts/00000", "dataset")]
    assert winnow.unjudged(run, [0]).broken == 2
    assert (
        [run.store.entry(name) for name in ("verdicts/00000", "dataset")]
        == entries
        == [filtered(tmp_path, filters, ["a", "b"]).store.entry(name) for name in ("verdicts/00000", "dataset")]
    )

    (entry,) = [entry for entry in entries[:1] if entry is not None]
    facts = {name: fact for name, fact in entry.facts.items() if name != "broken"}
    with run.store.writing("a test"):
        run.store.write_bytes("verdicts/00000.json", seal(entry.model_copy(update={"facts": facts})).encode())
    assert winnow.unjudged(run, [0]) == winnow.Unjudged([0], {}, 2)


def test_a_judge_is_asked_again_for_what_its_server_refused(tmp_path: Path) -> None:
    """The first run cannot ask about one answer."""

    class Judge(FakeOpenAI):
        def complete(self, body: dict[str, Any], *, chat: bool) -> dict[str, Any]:
            odds = -3.0 if "A if it is not acceptable" in body["messages"][-1]["content"] else 3.0
            top = [{"token": token, "logprob": logprob} for token, logprob in (("A", odds - 3), ("B", -odds - 3))]
            chosen = max(top, key=lambda entry: float(str(entry["logprob"])))
            choice = {"index": 0, "finish_reason": "length", "message": {"content": chosen["token"]}}
            return {"choices": [choice | {"logprobs": {"content": [chosen | {"top_logprobs": top}]}}]}

    def refuse(_: int, body: dict[str, Any]) -> Any:
        return (400, {}, "out of order") if "second" in body["messages"][-1]["content"] else None

    with Judge(misbehave=refuse, context=100_000) as server:
        engine = {"engine": {"kind": "openai_http", "base_urls": [server.url]}, "model": {"name": "small"}}
        filters = [{"name": "judge", "parameters": {"canaries_per_batch": 0, **engine}}]
        run = filtered(tmp_path, filters, ["the first", "the second"])
        assert reasons(run) == ["", "filter_error"]

        server.misbehave = lambda *_: None
        server.bodies.clear()
        run = filtered(tmp_path, filters, ["the first", "the second"])

        assert reasons(run) == ["", ""]
        assert not [body for body in server.bodies if "the first" in body["messages"][-1]["content"]]


def test_looking_for_broken_verdicts_reads_each_entry_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On an object store each look is two requests."""
    filters = [{"name": "regex", "parameters": {"pattern": "a"}}]
    run = filtered(tmp_path, filters, ["a", "b"])
    looks, exists = list[str](), Store.exists

    def noted(store: Store, name: str) -> bool:
        looks.append(name)
        return exists(store, name)

    monkeypatch.setattr(Store, "exists", noted)

    assert winnow.unjudged(run, [0]).broken == 0
    assert looks.count("verdicts/00000.json") == 1

    looks.clear()
    assert judged.hits_of_shards(run.store) == {0: 1}
    assert looks.count("verdicts/00000.json") == 1

    audit = count(run)
    looks.clear()
    notes(run, audit)
    assert not [name for name in looks if "verdicts" in name]


def test_filters_over_the_corpus_are_asked_again_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first run ends in the middle of the corpus."""
    (tmp_path / "over_all.py").write_text(
        "from pathlib import Path\n"
        "from filters.base import Filter, Role, Scope\n"
        "from pydantic import BaseModel\n"
        "from schemas.sample import Verdict\n"
        "class Config(BaseModel):\n    broken: str\n"
        "def build(config):\n"
        "    def judge(batches):\n"
        "        for batch in batches:\n"
        "            if Path(config.broken).exists(): raise OSError('out of order')\n"
        "            yield [Verdict.keep()] * batch.num_rows\n"
        "    return Filter('over_all', '1', Scope.CORPUS, Role.QUALITY, judge, ('completion',))\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    filters = [{"name": "over_all:build", "parameters": {"broken": str(tmp_path / "broken")}}]
    (tmp_path / "broken").touch()
    assert reasons(filtered(tmp_path, filters, ["a", "b"])) == ["filter_error"] * 2

    (tmp_path / "broken").unlink()

    assert reasons(filtered(tmp_path, filters, ["a", "b"])) == [""] * 2
