"""A run on real vLLM whose model writes tool calls: vLLM's parser finds them, and tool_call judges them."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest
import yaml

from schemas.sample import SAMPLES
from thresher.inputs import recipe_file
from thresher.pool.judged import each_judged
from thresher.running import steps
from thresher.running.progress import Progress

pytestmark = pytest.mark.slow

CITIES = ("Paris", "Rome", "Madrid", "Berlin", "Vienna", "Oslo")


def written(city: str) -> str:
    call = {"name": "weather", "arguments": {"city": city}}
    return f"<think>\nThey ask for {city}, so I need <tool_call>.\n</think>\n<tool_call>\n{json.dumps(call)}\n</tool_call>"


def write_recipe(folder: Path) -> Path:
    """Questions about the weather, with two turns that show how a tool is called after some thinking."""
    turns = [{"user": f"Weather in {city}?", "assistant": written(city)} for city in ("London", "Tokyo", "Lima")]
    rows = [{"city": city, "calls": [{"name": "weather", "arguments": {"city": city}}]} for city in CITIES]
    (folder / "cities.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    recipe = {
        "name": "calls",
        "prompts": [
            {
                "family": "weather",
                "source": {"kind": "jsonl", "path": "cities.jsonl"},
                "few_shot": turns,
                "template": "Weather in {{ city }}?",
                "reference": "calls",
            }
        ],
        "model": {"reasoning": "qwen3", "tool_parser": "hermes"},
        "engine": {"kind": "vllm", "max_model_len": 1024, "kv_cache_gib": 1, "enforce_eager": True},
        "sampling": {"samples_per_prompt": 4, "max_tokens": 80, "anchor": False},
        "filters": [{"name": "finished"}, {"name": "tool_call"}],
        "dedupe": None,
        "near_miss": None,
    }
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe))
    return path


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory, warm_engines: None) -> pa.Table:
    """All samples of a run with what became of them."""
    folder = tmp_path_factory.mktemp("calls")
    begun = steps.begin(recipe_file.load(write_recipe(folder)), folder / "run")
    with Progress() as progress:
        steps.run_steps(begun, progress)
    return pa.concat_tables(each_judged(begun.run.store, [*SAMPLES.names]))


def test_calls_that_the_model_wrote_are_found_and_judged(judged: pa.Table) -> None:
    """At least one is the call that was asked for; a thought that mentions a mark of a call is none."""
    rows = judged.to_pylist()
    called = [row for row in rows if row["tool_calls"] is not None]
    for row in called:
        print(row["outcome"], row["reason"], row["tool_calls"], repr(row["completion"]))  # pytest -s shows them

    assert len(rows) == 4 * len(CITIES)
    assert any(row["kind"] == "hit" for row in called)
    for row in called:
        assert row["parsed_by"] == "hermes"
        assert [set(call) for call in json.loads(row["tool_calls"])] == [{"name", "arguments"}] * len(
            json.loads(row["tool_calls"])
        )
        assert "<tool_call>" in row["completion"]
        assert "</tool_call>" not in row["answer"]
        assert (row["reasoning"] is None) == ("</think>" not in row["completion"])
        if row["kind"] == "hit":
            assert json.loads(row["tool_calls"]) == json.loads(row["reference"])


def test_calls_and_reasoning_are_told_apart(judged: pa.Table) -> None:
    """Samples without a call keep their text, and a thought that was cut has no answer and no call."""
    cut = judged.filter(pc.is_null(judged["answer"]))
    assert cut["tool_calls"].null_count == cut.num_rows
    thought = judged.filter(pc.and_(pc.is_valid(judged["reasoning"]), pc.is_valid(judged["tool_calls"])))
    assert thought.num_rows
    for row in thought.to_pylist():
        assert 0 < row["reasoning_tokens"] < len(row["completion_ids"])
        assert row["reasoning"] in row["completion"]
