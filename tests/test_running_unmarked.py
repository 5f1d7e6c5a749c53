"""Marks of thinking that never occur are reported once, with an example."""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from filters.reasoning import Marking, take_apart
from helpers.runs import run_recipe
from schemas.engines import Marks, ModelSpec
from schemas.sample import JOURNAL
from thresher.inputs.thinking import marking_of
from thresher.running.unmarked import Unmarked


def rows(texts: list[str], marking: Marking | None, opened: bool | None = None, **columns: Any) -> pa.Table:
    """Rows of a journal whose completions were taken apart."""
    apart = take_apart(pa.array(texts), marking, [opened] * len(texts))
    known = {
        "completion": pa.array(texts),
        "reasoning": apart.reasoning,
        "answer": apart.answer,
        "parsed_by": pa.array(["marks" if end else None for end in apart.ends.tolist()], pa.string()),
        **columns,
    }
    return pa.table([known.get(field.name, pa.nulls(len(texts), field.type)) for field in JOURNAL], names=JOURNAL.names)


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (
            ModelSpec(reasoning=Marks(start="<think>", end="</think>")),
            "the marks do not occur (<think> </think>) in the first 120",
        ),
        (ModelSpec(reasoning="mistral"), "the parser mistral finds no reasoning ([THINK] [/THINK]) in the first 120 samples"),
        (ModelSpec(reasoning="granite"), "the parser granite finds no reasoning in the first 120 samples; give the marks"),
        (ModelSpec(reasoning="qwen3"), "raise sampling.max_tokens if they were cut before the end of the thinking, or give"),
    ],
    ids=["marks", "pair", "parser", "opened"],
)
def test_marks_that_never_occur_are_reported_once(spec: ModelSpec, words: str, caplog: pytest.LogCaptureFixture) -> None:
    marking, unmarked = marking_of(spec, ""), Unmarked()
    for _ in range(6):
        unmarked.look(rows(["[T]hm[/T]Paris"] * 60, marking), spec, marking)

    [record] = caplog.records
    assert words in record.message
    assert record.message.endswith("for example '[T]hm[/T]Paris'")


@pytest.mark.parametrize(
    ("spec", "texts", "columns"),
    [
        (ModelSpec(reasoning="auto"), ["Paris"] * 200, {}),
        (ModelSpec(reasoning=None), ["Paris"] * 200, {}),
        (ModelSpec(reasoning="mistral"), [*["Paris"] * 199, "[THINK]hm[/THINK]Paris"], {}),
        (ModelSpec(reasoning="qwen3"), ["Paris"] * 200, {"reasoning": ["hm"] * 200, "parsed_by": ["server"] * 200}),
        (ModelSpec(reasoning="mistral"), ["Paris"] * 99, {}),
        (ModelSpec(reasoning="mistral"), [""] * 200, {"error": ["too long"] * 200}),
    ],
    ids=["auto", "null", "one of 200", "server", "too few", "not drawn"],
)
def test_there_is_no_warning_without_a_reason(
    spec: ModelSpec, texts: list[str], columns: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    marking = marking_of(spec, "")
    typed = {name: pa.array(values) for name, values in columns.items()}
    Unmarked().look(rows(texts, marking, **typed), spec, marking)

    assert not caplog.records


def test_a_run_warns_once(recipe: Callable[..., Path], tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Over all shards of the run."""
    path = recipe(
        model={"reasoning": {"start": "[THINK]", "end": "[/THINK]"}}, sampling={"samples_per_prompt": 60, "max_tokens": 16}
    )
    with caplog.at_level(logging.WARNING):
        run_recipe(path, tmp_path / "run")

    found = [record.message for record in caplog.records if "model.reasoning" in record.message]
    assert len(found) == 1
    assert json.dumps("[THINK] [/THINK]")[1:-1] in found[0]
