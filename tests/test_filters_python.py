"""python: a third-party filter in processes of its own."""

from pathlib import Path

import pytest

import filters
from filters.base import FilterError
from helpers.filter_tables import verdicts

SOURCE = """
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
def third_party(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A filter on the path that hangs, dies and raises."""
    (tmp_path / "third_party.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(str(tmp_path))


@pytest.mark.slow
def test_failures_of_the_filter_cost_their_sample_only(third_party: None) -> None:
    """A sample on which it hangs, dies or raises is undecided; the other verdicts come back complete."""
    texts = ["good", "x", "hang", "good", "raise", "die", *["good"] * 40]
    parameters = {"build": "third_party:build", "seconds": 0.5}
    rows = verdicts("python", parameters, *({"completion": text, "reference": {"a": 1}} for text in texts))

    assert [row["result"] for row in rows] == ["keep", "bad", "timeout", "keep", "filter_error", "crash", *["keep"] * 40]
    assert rows[0]["score"] == 1.0
    assert rows[1]["detail"] == {"reference": {"a": 1}}
    assert "ValueError: no" in rows[4]["detail"]["error"]


def test_the_key_includes_the_wrapped_filter(third_party: None) -> None:
    """Its version and parameters; a filter over prompts is refused, and the message says what to write."""
    keys = {filters.build("python", {"build": "third_party:build", "parameters": {"good": good}}).key for good in "ab"}

    assert len(keys) == 2
    assert filters.build("python", {"build": "third_party:build"}).version == "1+7"
    with pytest.raises(FilterError, match=r'name it directly: \{name: "third_party:build_prompt"\}'):
        filters.build("python", {"build": "third_party:build_prompt"})
    with pytest.raises(FilterError, match="cannot import nowhere"):
        filters.build("python", {"build": "nowhere:build"})
