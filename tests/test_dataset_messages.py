"""Prompts and completions in the views have the parts that occur in the run, and no others."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import yaml
from conftest import RECIPE
from datasets import load_dataset

from thresher.cli import main
from thresher.dataset.messages import completion_column, message_type, parts_of, prompt_column
from thresher.pool.run import open_run

ANSWERS = [
    "<think>\nFrance. Lyon?\nNo.\n</think>\n\nParis",
    "<think>\nEasy.\n</think>\n\nLyon",
    "Paris",
    "<think>\nIt could be",
]


@pytest.fixture(scope="module")
def thinking(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe whose model thinks before most answers."""
    tmp_path = tmp_path_factory.mktemp("thinking")
    (tmp_path / "prompts.jsonl").write_text(json.dumps({"country": "France", "answer": "Paris"}) + "\n")
    rows = [{"prompt": "Capital of France?", "completion": text} for text in ANSWERS]
    (tmp_path / "answers.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    recipe = RECIPE | {"dedupe": None, "near_miss": {"common": 0, "share": 1}}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    return tmp_path


def run(folder: Path, name: str, *settings: str) -> Path:
    """A run of the recipe with other settings, made once."""
    out = folder / name
    if out.exists():
        return out
    further = [part for setting in settings for part in ("--set", setting)]
    assert main(("run", str(folder / "recipe.yaml"), "--out", str(out), "--no-prefect", *further)) == 0
    return out


def completions(out: Path, view: str) -> list[Any]:
    rows = load_dataset(str(out / "dataset"), view, split="train")
    return [
        message for row in rows for message in (row["completion"] if "completion" in row else row["chosen"] + row["rejected"])
    ]


@pytest.mark.slow
def test_reasoning_is_a_part_of_the_message(thinking: Path) -> None:
    out = run(thinking, "keep")

    assert completions(out, "sft") == [
        {"role": "assistant", "content": "Paris", "reasoning_content": "France. Lyon?\nNo."},
        {"role": "assistant", "content": "Paris", "reasoning_content": None},
    ]
    assert {(row["content"], row["reasoning_content"]) for row in completions(out, "unpaired")} >= {("Lyon", "Easy.")}
    rollouts = load_dataset(str(out / "dataset"), "rollouts", split="train")
    cut = [row for row in rollouts if row["reason"] == "cut_while_thinking"]
    assert [row["completion"] for row in cut] == 2 * [[{"role": "assistant", "content": "", "reasoning_content": "It could be"}]]
    assert open_run(out).prompt_format == "chat+reasoning_content"


def test_the_halves_of_a_pair_have_their_reasoning(thinking: Path) -> None:
    (pair,) = load_dataset(str(run(thinking, "keep") / "dataset"), "preference", split="train")

    assert pair["rejected"] == [{"role": "assistant", "content": "Lyon", "reasoning_content": "Easy."}]
    assert pair["chosen"][0]["content"] == "Paris"


@pytest.mark.parametrize(
    ("how", "first"),
    [("drop", {"role": "assistant", "content": "Paris"}), ("inline", {"role": "assistant", "content": ANSWERS[0]})],
)
def test_reasoning_may_be_left_out_or_left_in_the_text(how: str, first: dict[str, str], thinking: Path) -> None:
    assert completions(run(thinking, how, f"dataset.reasoning={how}"), "sft")[0] == first


def test_a_run_without_reasoning_has_plain_messages(thinking: Path) -> None:
    out = run(thinking, "plain", "model.reasoning=null")

    assert completions(out, "unpaired")[0].keys() == {"role", "content"}
    assert open_run(out).prompt_format == "chat"


def test_a_base_model_has_texts() -> None:
    rows = pa.table(
        {"completion": ["<think>a</think>b"], "answer": ["b"], "reasoning": ["a"], "tool_calls": pa.nulls(1, pa.string())}
    )

    assert completion_column(rows, "text").to_pylist() == ["<think>a</think>b"]
    assert message_type("text") == pa.string()


def test_messages_of_a_run_with_tools_have_no_keys_that_they_lack() -> None:
    """A template of Llama 3.1's kind takes any message with the key tool_calls for a call."""
    form = "chat+tool_calls+tool_call_id+tools"
    calls = json.dumps([{"name": "add", "arguments": {"a": 1}}])
    rows = pa.table({"completion": ["x", "y"], "answer": ["", None], "reasoning": [None, "r"], "tool_calls": [calls, None]})
    turns = [{"role": "tool", "content": "3", "tool_call_id": "c1", "tool_calls": None, "name": None, "reasoning_content": None}]

    shown = completion_column(rows, form).to_pylist()
    prompts = prompt_column(pa.chunked_array([[turns]]), form).to_pylist()

    assert json.loads(shown[0][0]) == {
        "role": "assistant",
        "content": "",
        "tool_calls": [{"type": "function", "function": {"name": "add", "arguments": {"a": 1}}}],
    }
    assert json.loads(shown[1][0]) == {"role": "assistant", "content": ""}
    assert [json.loads(text) for text in prompts[0]] == [{"role": "tool", "content": "3", "tool_call_id": "c1"}]
    assert parts_of(form) == ["role", "content", "tool_calls", "tool_call_id"]
