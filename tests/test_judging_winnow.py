"""The order filters run in, what they are shown, and that none is asked twice for the same thing."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from helpers.runs import run_recipe
from thresher.auditing.count_run import count
from thresher.pool.run import open_run

Write = Callable[..., Path]

NOTED = """
import os
from pydantic import BaseModel, ConfigDict
from filters.base import Filter, Role, Scope
from schemas.sample import Verdict

class Config(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    name: str
    version: str = "1"
    cost_us: float = 1.0
    refuses: str = "no such answer"
    undecided: bool = False
    scope: str = "sample"

def build(config):
    def judge(table):
        with open(os.environ["NOTED"], "a") as file:
            file.write("".join(f"{config.name}\\n" for _ in range(table.num_rows)))
        return [verdict(text) for text in table["completion"].to_pylist()]

    def verdict(text):
        if config.refuses in text:
            return Verdict.undecided("unparsed") if config.undecided else Verdict.drop("refused")
        return Verdict.keep(score=float(len(text)))

    columns = ("prompt_id", "completion")
    return Filter(config.name, config.version, Scope(config.scope), Role.VERIFIER, judge, columns, cost_us=config.cost_us)
"""


@pytest.fixture
def noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], dict[str, int]]:
    """Puts the filter `noting:build` on the path; gives how many samples each was asked for since the last time."""
    (tmp_path / "noting.py").write_text(NOTED)
    monkeypatch.syspath_prepend(str(tmp_path))
    calls = tmp_path / "calls.txt"
    monkeypatch.setenv("NOTED", str(calls))

    def asked() -> dict[str, int]:
        names = calls.read_text().split() if calls.exists() else []
        calls.unlink(missing_ok=True)
        return {name: names.count(name) for name in dict.fromkeys(names)}

    return asked


def noting(name: str, **parameters: Any) -> dict[str, Any]:
    return {"name": "noting:build", "parameters": {"name": name, **parameters}}


def winnowed(recipe: Path, out: Path, *changes: str) -> dict[str, Any]:
    """Run a recipe whose verifiers are not checked first; returns the audit as JSON values."""
    return run_recipe(recipe, out, "run.check_golds=0", *changes).audit.to_dict()


def test_neighbours_run_cheapest_first_unless_the_recipe_says_otherwise(
    recipe: Write, tmp_path: Path, noted: Callable[[], dict[str, int]]
) -> None:
    """A filter over prompts stays where it stands; who is kept is the same."""
    path = recipe(
        filters=[
            noting("dear", cost_us=90, refuses="R"),
            noting("cheap"),
            noting("prompts", scope="prompt"),
            noting("last", cost_us=0.1),
        ]
    )
    cheapest = winnowed(path, tmp_path / "cheapest")
    assert [filter_counts["name"] for filter_counts in cheapest["filters"]] == ["cheap", "dear", "prompts", "last"]
    assert list(noted()) == ["cheap", "dear", "prompts", "last"]
    written = winnowed(path, tmp_path / "written", "run.filter_order=written")

    assert [item["name"] for item in written["filters"]] == ["dear", "cheap", "prompts", "last"]
    assert written["outcomes"] == cheapest["outcomes"]


def test_upgrading_one_filter_asks_that_filter_alone(recipe: Write, tmp_path: Path, noted: Callable[[], dict[str, int]]) -> None:
    """The others' verdicts are taken from the earlier pass, and the audit still adds up."""
    whole = winnowed(recipe(filters=[noting("one", cost_us=1), noting("two", cost_us=2, refuses="R")]), tmp_path / "run")
    assert noted() == {"one": 20, "two": 20}
    newer = recipe(filters=[noting("one", cost_us=1), noting("two", cost_us=2, refuses="R", version="2")])
    found = winnowed(newer, tmp_path / "run")

    assert noted() == {"two": 20}
    assert found["filters"][1]["version"] == "2"
    assert found["outcomes"] == whole["outcomes"]
    assert found["problems"] == []


def test_further_samples_are_judged_and_the_earlier_ones_are_not_judged_again(
    recipe: Write, tmp_path: Path, noted: Callable[[], dict[str, int]]
) -> None:
    """samples_per_prompt raised from 2 to 4: 8 further samples, and a shard whose samples extend the earlier ones."""
    path = recipe(filters=[noting("one")], dedupe={"within_run": None})
    winnowed(path, tmp_path / "run", "sampling.samples_per_prompt=2")
    assert noted() == {"one": 12}
    found = winnowed(path, tmp_path / "run")

    assert noted() == {"one": 8}
    assert (found["samples"], found["problems"]) == (16, [])


def test_undecided_samples_are_tried_again(recipe: Write, tmp_path: Path, noted: Callable[[], dict[str, int]]) -> None:
    """With the next pass, whatever caused it; what was decided stays."""
    path = recipe(filters=[noting("shaky", refuses="Paris", undecided=True), noting("other", cost_us=5)])
    winnowed(path, tmp_path / "run")
    noted()
    winnowed(
        recipe(filters=[noting("shaky", refuses="Paris", undecided=True), noting("other", cost_us=5, version="2")]),
        tmp_path / "run",
    )

    assert noted()["shaky"] == 4  # two of four answers to France, Paris as the anchor and its third sample again


@pytest.mark.slow
def test_a_costly_filter_judges_equal_samples_once(recipe: Write, tmp_path: Path, noted: Callable[[], dict[str, int]]) -> None:
    """In one batch, and in the waves of an adaptive run and its shards after them."""
    cheap = recipe(filters=[noting("cheap", cost_us=1.5)])
    waves = ["sampling.target_hits=2", "sampling.max_samples_per_prompt=8", "sampling.samples_per_prompt=2"]
    plain = winnowed(cheap, tmp_path / "cheap", *waves)
    assert noted()["cheap"] > plain["samples"]
    dear = winnowed(recipe(filters=[noting("dear", cost_us=5000.5)]), tmp_path / "dear", *waves)

    assert noted() == {"dear": 8}  # so many distinct completions there are
    assert dear["outcomes"] == plain["outcomes"]


def test_an_exhaustive_audit_shows_every_sample_to_every_filter(
    recipe: Write, tmp_path: Path, noted: Callable[[], dict[str, int]]
) -> None:
    """Overlaps are counted, outcomes are those of the first filter that did not keep a sample, and everything adds up."""
    filters = [noting("a", cost_us=1, refuses="o"), noting("b", cost_us=2, refuses="Tokyo")]
    path = recipe(filters=filters, dedupe={"within_run": None})
    plain = winnowed(path, tmp_path / "plain")
    assert noted() == {"a": 20, "b": 9}
    found = winnowed(path, tmp_path / "all", "audit.exhaustive=true")

    assert noted() == {"a": 20, "b": 20}
    assert found["problems"] == []
    assert (found["outcomes"], found["kinds"]) == (plain["outcomes"], plain["kinds"])
    seen = {filter_counts["name"]: filter_counts["seen"] for filter_counts in found["filters"]}
    assert (seen["a"], seen["b"]) == (16, 16)  # anchors stand in no statistic
    (overlap,) = found["overlaps"]
    drops = [item["dropped"]["refused"] for item in found["filters"][:2]]
    assert overlap == {"filters": ["a", "b"], "seen": 16, "dropped": drops, "both": drops[1]}  # whoever says Tokyo says o
    assert plain["overlaps"] == []
    again = winnowed(path, tmp_path / "all", "audit.exhaustive=true")
    assert (noted(), again["outcomes"]) == ({}, found["outcomes"])


def test_a_verifier_that_rarely_decides_raises_an_alarm(
    recipe: Write, tmp_path: Path, noted: Callable[[], dict[str, int]]
) -> None:
    """Its classes are counted, only pass and fail being evidence; and its scores are set against length."""
    found = winnowed(recipe(filters=[noting("shaky", refuses="o", undecided=True)]), tmp_path / "run")
    (one,) = found["filters"]

    assert sum(one["classes"].values()) == one["seen"]
    assert one["classes"]["unparsed"] == one["undecided"]["unparsed"] > 0
    assert one["length_correlation"] == pytest.approx(1.0)
    (alarm,) = found["alarms"]
    assert alarm.startswith("shaky: unparsed ")
    assert "at most 30.0% is acceptable" in alarm


def test_a_damaged_verdict_file_is_rewritten(recipe: Write, tmp_path: Path, noted: Callable[[], dict[str, int]]) -> None:
    """It is no help to the next pass, and no hindrance."""
    winnowed(recipe(filters=[noting("one")]), tmp_path / "run")
    noted()
    for path in (tmp_path / "run" / "verdicts").glob("*.parquet"):
        path.write_bytes(b"no parquet")
    found = winnowed(recipe(filters=[noting("one"), noting("two", cost_us=2)]), tmp_path / "run")

    assert noted()["one"] == 20
    assert found["problems"] == []


@pytest.mark.slow
def test_verdict_files_note_how_many_verdicts_were_known(
    recipe: Write, tmp_path: Path, noted: Callable[[], dict[str, int]]
) -> None:
    """So that the seconds of a filter are read for what they are: of the samples it was asked for."""
    winnowed(recipe(filters=[noting("one")]), tmp_path / "run")
    winnowed(recipe(filters=[noting("one"), noting("two", cost_us=2)]), tmp_path / "run")
    run = open_run(tmp_path / "run")
    entries = [json.loads((tmp_path / "run" / "verdicts" / name).read_text()) for name in run.store.names("verdicts", ".json")]

    assert sum(entry["facts"]["filters"][0]["known"] for entry in entries) == 20
    assert sum(entry["facts"]["filters"][1]["known"] for entry in entries) == 0
    assert count(run).problems == ()
