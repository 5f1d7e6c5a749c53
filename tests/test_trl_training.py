"""TRL takes one step on the views of runs with reasoning and with tool calls, each by the trainer it is made for."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from datasets import Dataset, load_dataset

from helpers.tiny_model import tiny_model
from thresher.cli import main

TOOL = {
    "type": "function",
    "function": {
        "name": "add",
        "description": "Add two numbers.",
        "parameters": {
            "type": "object",
            "properties": {name: {"type": "integer", "description": "a number"} for name in ("a", "b")},
            "required": ["a", "b"],
        },
    },
}
FILTERS: dict[str, Any] = {
    "thoughts": {"name": "exact_answer"},
    "tools": {"name": "tool_call"},
}


def answer(reasoning: str, text: str, call: dict[str, Any] | None = None) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": text, "reasoning_content": reasoning}
    if call is not None:
        arguments = json.dumps(call)
        message["tool_calls"] = [{"id": "c1", "type": "function", "function": {"name": "add", "arguments": arguments}}]
    return message


def samples(kind: str) -> list[dict[str, Any]]:
    """For each of two prompts a right answer and a wrong one that is close to it."""
    rows: list[dict[str, Any]] = []
    for number in (1, 2):
        if kind == "thoughts":
            prompt = [{"role": "user", "content": f"Count to the number {number}."}]
            right = f"one and then it is {number} at last"
            texts = (right, right.replace("last", "most"))
            rows += [{"prompt": prompt, "completion": [answer("Slowly.", text)], "reference": right} for text in texts]
            continue
        prompt = [{"role": "user", "content": f"Add {number} and 2."}]
        call = {"a": number, "b": 2}
        asked = {"prompt": prompt, "tools": [TOOL], "reference": [{"name": "add", "arguments": call}]}
        text = "I add them with the tool:"
        rows += [asked | {"completion": [answer("A sum.", text, arguments)]} for arguments in (call, {"a": number, "b": 3})]
    return rows


@pytest.fixture(scope="module", params=["thoughts", "tools"])
def dataset(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """The dataset of samples with reasoning, without and with tool calls."""
    kind: str = request.param
    folder = tmp_path_factory.mktemp(kind)
    (folder / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in samples(kind)))
    recipe = {"name": kind, "filters": [FILTERS[kind]], "dedupe": None, "near_miss": {"share": 0.5}}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    out = folder / "run"
    assert main(("filter", str(folder / "recipe.yaml"), "--samples", str(folder / "samples.jsonl"), "--out", str(out))) == 0
    return kind, out / "dataset"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tiny_model(tmp_path_factory.mktemp("tiny"))


def sft(model: str, rows: Dataset, settings: dict[str, Any]) -> Any:
    from trl import SFTConfig, SFTTrainer

    return SFTTrainer(model, args=SFTConfig(**settings, max_length=512), train_dataset=rows)


def dpo(model: str, rows: Dataset, settings: dict[str, Any]) -> Any:
    from trl import DPOConfig, DPOTrainer

    return DPOTrainer(model, args=DPOConfig(**settings), train_dataset=rows)


def kto(model: str, rows: Dataset, settings: dict[str, Any]) -> Any:
    from trl import KTOConfig, KTOTrainer

    return KTOTrainer(model, args=KTOConfig(**settings), train_dataset=rows)


def grpo(model: str, rows: Dataset, settings: dict[str, Any]) -> Any:
    from trl import GRPOConfig, GRPOTrainer

    def length(completions: list[Any], **_: Any) -> list[float]:
        return [float(len(str(completion))) for completion in completions]

    config = GRPOConfig(**settings, num_generations=2, max_completion_length=8)
    return GRPOTrainer(model, reward_funcs=length, args=config, train_dataset=rows)


TRAINERS: dict[str, tuple[str, Callable[..., Any]]] = {
    "sft": ("sft", sft),
    "dpo": ("preference", dpo),
    "kto": ("unpaired", kto),
    "grpo": ("prompts", grpo),
}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("trainer", TRAINERS)
def test_a_trainer_takes_a_step(trainer: str, dataset: tuple[str, Path], model: str, tmp_path: Path) -> None:
    kind, folder = dataset
    view, build = TRAINERS[trainer]
    rows = load_dataset(str(folder), view, split="train")
    settings: dict[str, Any] = {"output_dir": str(tmp_path), "max_steps": 1, "per_device_train_batch_size": 2, "report_to": []}
    settings |= {"use_cpu": True, "save_strategy": "no", "logging_strategy": "no", "disable_tqdm": True}

    built = build(model, rows, settings)
    result = built.train()

    assert result.global_step == 1
    assert len(rows) >= 2
    if trainer == "sft":
        text = built.processing_class.decode(next(iter(built.train_dataset))["input_ids"])
        assert "<think>" in text
        assert ("<tool_call>" in text, "Add two numbers." in text) == (kind == "tools", kind == "tools")
