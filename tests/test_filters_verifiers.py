"""python and reasoning_gym: what each keeps, drops and leaves undecided."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import filters
from filters.base import FilterError
from filters.judging import judge
from schemas.sample import SAMPLES, to_json


def table(*rows: dict[str, Any]) -> pa.Table:
    """Pool rows with what a filter reads; everything else is neutral."""
    base = {"family": "f", "anchor": False, "messages": [], "metadata": "{}", "finish_reason": "stop", "prompt_id": "p"}
    made = []
    for number, row in enumerate(rows):
        reference = None if row.get("reference") is None else to_json(row["reference"])
        made.append({**base, "sample_id": f"s{number}", "index": number, **row, "reference": reference})
    return pa.Table.from_pylist(made, schema=SAMPLES)


def verdicts(name: str, parameters: dict[str, Any], *rows: dict[str, Any]) -> list[dict[str, Any]]:
    found = judge(filters.build(name, parameters), table(*rows)).to_pylist()
    return [{**one, "detail": json.loads(one["detail"] or "{}"), "said": one["reason"] or one["outcome"]} for one in found]


def said(name: str, parameters: dict[str, Any], *rows: dict[str, Any]) -> list[str]:
    return [one["said"] for one in verdicts(name, parameters, *rows)]


# -- python ------------------------------------------------------------------------------------------------------------------

MINE = """
import os, time
from pydantic import BaseModel
from filters.base import Filter, Role, Scope
from filters.judging import one_by_one
from schemas.sample import Verdict

class Config(BaseModel):
    good: str = "good"

def build(config):
    def judge(sample):
        if sample.completion == "hang":
            time.sleep(600)
        if sample.completion == "die":
            os._exit(9)
        if sample.completion == "raise":
            raise ValueError("no")
        good = sample.completion == config.good
        return Verdict.keep(1.0, pid=os.getpid()) if good else Verdict.drop("bad", reference=sample.reference)
    columns = ("completion", "reference")
    return Filter("mine", "7", Scope.SAMPLE, Role.VERIFIER, one_by_one(judge, columns), columns)

def build_prompt(config):
    return Filter("mine", "7", Scope.PROMPT, Role.VERIFIER, lambda table: [], ("prompt_id",))
"""


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A filter of somebody's on the path, that hangs, dies and raises."""
    (tmp_path / "somebodys.py").write_text(MINE)
    monkeypatch.syspath_prepend(str(tmp_path))


@pytest.mark.slow
def test_python_isolates_somebodys_filter(mine: None) -> None:
    """Its verdicts come back whole; a sample that hangs or kills it is undecided, and no other is touched."""
    texts = ["good", "x", "hang", "good", "raise", "die", *["good"] * 40]
    parameters = {"build": "somebodys:build", "seconds": 0.5}
    found = verdicts("python", parameters, *({"completion": text, "reference": {"a": 1}} for text in texts))

    assert [one["said"] for one in found] == ["keep", "bad", "timeout", "keep", "filter_error", "crash", *["keep"] * 40]
    assert found[0]["score"] == 1.0
    assert found[1]["detail"] == {"reference": {"a": 1}}
    assert "ValueError: no" in found[4]["detail"]["error"]


def test_python_is_keyed_by_the_filter_inside(mine: None) -> None:
    """Its version and parameters decide, and a filter over prompts is refused with the way out."""
    keys = {filters.build("python", {"build": "somebodys:build", "parameters": {"good": good}}).key for good in "ab"}

    assert len(keys) == 2
    assert filters.build("python", {"build": "somebodys:build"}).version == "1+7"
    with pytest.raises(FilterError, match=r'name it directly: \{name: "somebodys:build_prompt"\}'):
        filters.build("python", {"build": "somebodys:build_prompt"})
    with pytest.raises(FilterError, match="cannot import nowhere"):
        filters.build("python", {"build": "nowhere:build"})


# -- reasoning_gym -----------------------------------------------------------------------------------------------------------


def gym(name: str, completion: str, **made: Any) -> dict[str, Any]:
    item = {"name": name, "config": {}, "seed": 7, "index": 1, **made}
    return {"completion": completion, "metadata": to_json({"reasoning_gym": item})}


@pytest.mark.slow
def test_reasoning_gym_scores_the_very_item() -> None:
    """Made again from name, config, seed and index; a lenient part of the score is not enough."""
    reasoning_gym = pytest.importorskip("reasoning_gym")
    answer = reasoning_gym.create_dataset("chain_sum", seed=7, size=2)[1]["answer"]
    rows = [
        gym("chain_sum", answer),
        gym("chain_sum", f" {answer}\n"),
        gym("chain_sum", f"The answer is {answer}."),
        gym("chain_sum", str(int(answer) + 1)),
        gym("chain_sum", answer, seed=8, index=0),
        gym("chain_sum", ""),
        gym("countdown", "__import__('os')"),
        gym("acre", "x"),
        gym("chain_sun", "x"),
        gym("chain_sum", "x", config={"min_terms": -1}),
        {"completion": "x"},
    ]
    found = verdicts("reasoning_gym", {}, *rows)

    assert [one["said"] for one in found] == [
        "keep", "keep", "wrong_answer", "wrong_answer", "keep", "unparsed", *["bad_reference"] * 4, "no_reference",
    ]  # fmt: skip
    assert "runs answers as code" in found[6]["detail"]["why"]
    marked = said("reasoning_gym", {"after": "Answer:"}, gym("chain_sum", f"so Answer: {answer}"), gym("chain_sum", answer))
    assert marked == ["keep", "unparsed"]
