"""Which samples a report shows, and where their faults are marked."""

import json
from pathlib import Path
from typing import Any

import pytest

from helpers.runs import filter_rows
from thresher.auditing.pages.examples import MOST_CHARACTERS, examples, located, shown
from thresher.pool.run import open_run


@pytest.mark.parametrize(
    ("detail", "kind", "text", "fault"),
    [
        ({"start": 3, "end": 6, "span": "def"}, None, "abcdefg", "def"),
        ({"start": 0, "end": 3, "span": "def"}, None, "abc\nabcdef", "def"),  # of the last line alone
        ({"start": 1, "end": 2}, None, "😀é!", "é"),
        ({"found": "41"}, "miss", "is it 41? it is 41.", "41"),
        ({"key": "age", "found": 7}, "miss", '{"age": 7}', "7"),
        ({"key": "age"}, "miss", '{"age": 7}', "age"),
        ({"path": "person/age", "message": "not a number"}, "miss", '{"person": {"age": "x"}}', "age"),
        ({"call": "f(1)", "found": "False"}, "miss", "def f(x): return False", "def f(x): return False"),
        ({"message": "invalid syntax"}, "miss", "def f(:", "def f(:"),
        ({}, "miss", "Lyon", "Lyon"),
        ({}, "miss", "long " * 100, None),
        ({}, None, "cut of", None),
        (None, "hit", "right", None),
    ],
)
def test_a_fault_is_located_by_the_filters_detail(detail: Any, kind: str | None, text: str, fault: str | None) -> None:
    span = located(None if detail is None else json.dumps(detail), kind, text)

    assert (None if span is None else text[span[0] : span[1]]) == fault


def row(**changed: Any) -> Any:
    given = dict.fromkeys(("similarity", "logprob", "detail", "reference", "error", "nearest_id", "nearest"))
    given |= {"sample_id": "s", "family": "f", "outcome": "drop", "kind": None, "filter": "x", "reason": "", "completion": ""}
    given |= {"reasoning": None, "tool_calls": None, "reasoning_tokens": 0, "thinking": False}
    return given | {"messages": [{"role": "user", "content": "what?"}]} | changed


def test_long_texts_are_cut_to_the_part_around_the_fault() -> None:
    text = "x" * 5000 + "SECRET" + "y" * 5000
    made = shown(row(completion=text, detail=json.dumps({"start": 5000, "end": 5006})), {})

    start, end = made["mark"]
    assert made["completion"][start:end] == "SECRET"
    assert len(made["completion"]) <= MOST_CHARACTERS + 4
    assert (made["completion"][0], made["completion"][-1]) == ("…", "…")
    words = [f"w{number}" for number in range(900)]
    other = [*words[:700], "changed", *words[701:]]
    made = shown(row(kind="near_miss", completion=" ".join(words), nearest=" ".join(other)), {})
    assert "w700" in made["completion"]
    assert "changed" in made["nearest"]
    assert made["completion"].split("w700")[0] == made["nearest"].split("changed")[0]
    early = shown(row(reason="truncated", completion="z" * 3000), {})
    assert (early["cut"], shown(row(reason="truncated", completion="z"), {})["cut"]) == (False, True)


def test_equal_contexts_are_kept_once() -> None:
    contexts: dict[str, int] = {}
    turns = [{"role": "system", "content": "Shout."}, {"role": "user", "content": "hello"}]
    made = [shown(row(messages=turns), contexts), shown(row(), contexts), shown(row(messages=turns), contexts)]

    assert [entry["context"] for entry in made] == [0, None, 0]
    assert list(contexts) == ["system: Shout."]
    assert [item["prompt"] for item in made] == ["hello", "what?", "hello"]


@pytest.mark.slow
def test_near_misses_are_shown_however_many_misses_there_are(tmp_path: Path) -> None:
    rows = [{"prompt": "what?", "reference": "42", "completion": "so the answer must be 42"}]
    rows += [{"prompt": "what?", "reference": "42", "completion": f"no idea {number} at all, none"} for number in range(300)]
    rows += [{"prompt": "what?", "reference": "42", "completion": "so the answer must be 41"}]
    filters = [{"name": "exact_answer", "parameters": {"after": "be"}}]

    found = examples(open_run(filter_rows(tmp_path, rows, {"filters": filters})))

    kinds = [row["kind"] for row in found["rows"]]
    assert kinds.count("near_miss") == 1
    near = found["rows"][kinds.index("near_miss")]
    assert (near["nearest"], near["mark"]) == ("so the answer must be 42", None)
    assert found["all"] is True
