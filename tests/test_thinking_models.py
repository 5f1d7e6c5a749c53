"""The recipe of docs/models.md for a model that thinks: on the tests' server, on vLLM's server, and on vLLM in this process."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import yaml
from datasets import load_dataset

from helpers.docs import block
from helpers.fake_openai import FakeOpenAI
from helpers.thinking_model import MARKS, thinking_model
from helpers.vllm_server import serving
from thresher.cli import main
from thresher.pool.run import open_run

SMALL = {"kind": "vllm", "max_model_len": 512, "max_num_seqs": 16, "kv_cache_gib": 1, "enforce_eager": True, "dtype": "float32"}


def recipe(folder: Path, model: str, engine: dict[str, Any], questions: list[dict[str, Any]], **sampling: Any) -> Path:
    """The recipe of the page, with another model and engine, small."""
    document = yaml.safe_load(block("docs/models.md", "yaml", "name: thinking"))
    (folder / "questions.jsonl").write_text("".join(json.dumps(question) + "\n" for question in questions))
    document["model"]["name"] = model
    document |= {"engine": engine, "sampling": {"samples_per_prompt": 8, "max_tokens": 64} | sampling}
    document |= {"dedupe": None, "near_miss": None, "run": {"filter_workers": 0, "check_golds": 0}}
    if all("kwargs" in question for question in questions):
        document["prompts"][0]["chat_template_kwargs"] = "kwargs"
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


def samples(out: Path) -> list[dict[str, Any]]:
    return [row for row in pa.concat_tables(open_run(out).samples()).to_pylist() if not row["anchor"]]


class Thinker(FakeOpenAI):
    """Thinks about every question, and gets cut in every fourth completion."""

    def complete(self, body: dict[str, Any], *, chat: bool) -> dict[str, Any]:
        assert chat
        choices = []
        for index in range(body["n"]):
            message: dict[str, Any] = {
                "role": "assistant",
                "reasoning": f"Is it {index}? As an AI ..." if index == 1 else "6 * 7 ...",
            }
            message["content"] = None if index % 4 == 3 else f"The answer is \\boxed{{{42 if index % 2 == 0 else 41}}}."
            choices.append({"index": index, "message": message, "finish_reason": "length" if index % 4 == 3 else "stop"})
        return {"choices": choices}


def test_reasoning_of_a_server_is_kept_and_answers_are_judged(tmp_path: Path) -> None:
    with Thinker(owned_by="x") as server:
        path = recipe(
            tmp_path, "small", {"kind": "openai_http", "base_urls": [server.url]}, [{"question": "6*7?", "answer": "42"}]
        )
        assert (
            main(
                (
                    "run",
                    str(path),
                    "--out",
                    str(tmp_path / "run"),
                    "--no-prefect",
                    "--allow-empty",
                    "--set",
                    "sampling.anchor=false",
                )
            )
            == 0
        )

    rows = samples(tmp_path / "run")
    expected = ["", "regex_forbidden", "", "cut_while_thinking", "", "wrong_answer", "", "cut_while_thinking"]
    assert [row["parsed_by"] for row in rows] == ["server"] * 8
    assert [bool(row["reason"]) for row in rows] == [bool(reason) for reason in expected]
    assert [row["reason"] == "cut_while_thinking" for row in rows] == [reason == "cut_while_thinking" for reason in expected]
    assert {row["answer"] for row in rows if row["reason"] == "cut_while_thinking"} == {None}
    sft = load_dataset(str(tmp_path / "run" / "dataset"), "sft", split="train")
    assert {row["completion"][0]["reasoning_content"] for row in sft} == {"6 * 7 ..."}
    assert server.bodies[0]["chat_template_kwargs"] == {"enable_thinking": True}


@pytest.mark.slow
@pytest.mark.usefixtures("warm_engines")
def test_vllm_in_this_process_takes_thoughts_from_answers(tmp_path: Path) -> None:
    """The template opens the thinking in the prompt, unless the arguments of a prompt say otherwise."""
    from transformers import AutoTokenizer

    thinking_model(tmp_path / "model")
    tokenizer: Any = AutoTokenizer.from_pretrained(tmp_path / "model")
    questions = [{"question": "6*7?", "answer": "42", "kwargs": {"enable_thinking": thinks}} for thinks in (True, False)]
    path = recipe(tmp_path, "./model", SMALL, questions, samples_per_prompt=16)

    assert main(("run", str(path), "--out", str(tmp_path / "run"), "--no-prefect", "--allow-empty")) == 0

    rows = samples(tmp_path / "run")
    thought = [row for row in rows if json.loads(row["template"])["enable_thinking"]]
    assert len(thought) == 16
    assert {row["parsed_by"] for row in thought} == {"marks"}
    closed = [row for row in thought if row["answer"] is not None]
    assert closed
    for row in closed:
        ids, tokens = row["completion_ids"], row["reasoning_tokens"]
        assert tokenizer.convert_ids_to_tokens(ids[tokens - 1]) == MARKS[1]
        assert tokenizer.decode(ids[:tokens]) == row["completion"][: len(tokenizer.decode(ids[:tokens]))]
        assert row["completion"].endswith(row["answer"])
        assert len(row["logprobs"]) == len(ids)
    for row in thought:
        if row["answer"] is None:
            assert row["reason"] == "cut_while_thinking"
            assert row["reasoning"] == row["completion"].strip()
    spoken = [row for row in rows if row not in thought]
    assert all(row["answer"] is not None for row in spoken)
    assert all(row["reasoning"] is None for row in spoken if MARKS[1] not in row["completion"])


@pytest.mark.slow
def test_vllms_server_with_a_reasoning_parser_and_a_tool_parser(tmp_path: Path) -> None:
    """Its parts are kept, with the tokens of the whole completion."""
    from transformers import AutoTokenizer

    model = thinking_model(tmp_path / "model")
    tokenizer: Any = AutoTokenizer.from_pretrained(model.path)
    parsers = ("--reasoning-parser", "deepseek_r1", "--enable-auto-tool-choice", "--tool-call-parser", "hermes")
    with serving(model.path, tmp_path / "log", *parsers) as url:
        path = recipe(tmp_path, "small", {"kind": "openai_http", "base_urls": [url]}, [{"question": "6*7?", "answer": "42"}])
        assert (
            main(
                (
                    "run",
                    str(path),
                    "--out",
                    str(tmp_path / "run"),
                    "--no-prefect",
                    "--allow-empty",
                    "--set",
                    "sampling.samples_per_prompt=16",
                )
            )
            == 0
        )

    rows = samples(tmp_path / "run")
    assert len(rows) == 16
    assert {row["parsed_by"] for row in rows} == {"server"}
    assert any(row["answer"] for row in rows)
    for row in rows:
        text = tokenizer.decode(row["completion_ids"])
        assert row["reasoning"].strip() in text
        assert (row["answer"] or "").strip() in text
        if MARKS[0] not in text:  # the parser starts again at a second start mark
            assert (row["answer"] is None) == (MARKS[1] not in text and row["finish_reason"] == "length")
        assert len(row["logprobs"]) == len(row["completion_ids"])


@pytest.mark.slow
def test_calls_that_vllms_server_found_are_judged(tmp_path: Path) -> None:
    """The server parses calls only of requests with tools."""
    from transformers import AutoTokenizer

    model = thinking_model(tmp_path / "model")
    tokenizer: Any = AutoTokenizer.from_pretrained(model.path)
    parsers = ("--reasoning-parser", "qwen3", "--enable-auto-tool-choice", "--tool-call-parser", "hermes")
    with serving(model.path, tmp_path / "log", *parsers) as url:
        path = calls_recipe(tmp_path, {"kind": "openai_http", "base_urls": [url]})
        assert main(("run", str(path), "--out", str(tmp_path / "run"), "--no-prefect", "--allow-empty")) == 0

    rows = samples(tmp_path / "run")
    called = [row for row in rows if row["tool_calls"] is not None]
    assert len(rows) == 32
    assert any(json.loads(row["tool_calls"]) == json.loads(row["reference"]) for row in called)
    for row in called:
        assert row["parsed_by"] == "server"
        text = tokenizer.decode(row["completion_ids"])
        assert all(call["name"] in text for call in json.loads(row["tool_calls"]))
        assert "</tool_call>" not in (row["answer"] or "")
    assert any(row["reason"] == "no_call" for row in rows)


def calls_recipe(folder: Path, engine: dict[str, Any]) -> Path:
    """Questions about the weather without thinking; turns show how the tool is called."""

    def call(city: str) -> dict[str, Any]:
        return {"name": "weather", "arguments": {"city": city}}

    shown = ("London", "Tokyo", "Lima")
    turns = [
        {"user": f"Weather in {city}?", "assistant": f"<tool_call>\n{json.dumps(call(city))}\n</tool_call>"} for city in shown
    ]
    properties = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
    tools = [{"type": "function", "function": {"name": "weather", "parameters": properties}}]
    rows = [
        {"city": city, "calls": [call(city)], "tools": tools, "kwargs": {"enable_thinking": False}} for city in ("Paris", "Rome")
    ]
    (folder / "cities.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    prompts = {
        "family": "weather",
        "source": {"kind": "jsonl", "path": "cities.jsonl"},
        "few_shot": turns,
        "template": "Weather in {{ city }}?",
        "reference": "calls",
        "tools": "tools",
        "chat_template_kwargs": "kwargs",
    }
    document = {
        "name": "calls",
        "prompts": [prompts],
        "model": {"name": "small"},
        "engine": engine,
        "sampling": {"samples_per_prompt": 16, "max_tokens": 64},
        "filters": [{"name": "finished"}, {"name": "tool_call"}],
        "dedupe": None,
        "near_miss": None,
        "run": {"filter_workers": 0, "check_golds": 0},
    }
    path = folder / "calls.yaml"
    path.write_text(yaml.safe_dump(document))
    return path
