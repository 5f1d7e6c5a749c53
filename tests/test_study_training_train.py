"""`thresher study --train`."""

import itertools
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from helpers import FOLDER
from helpers.lora import write_adapter
from helpers.studies import run_small_study
from schemas.sample import Message, Prompt
from thresher.cli import main
from thresher.study.prompt_variants import variants

Write = Callable[..., Path]


@pytest.mark.slow
def test_training_compares_models_on_prompts_they_have_not_seen(
    recipe: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two steps of TRL per training set, on a tiny Llama. Answers to held-out prompts come from a table, so that all models do
    equally well and the differences are 0. Nothing is published."""
    program = f"""
import sys
sys.path.insert(0, {str(FOLDER)!r})
from train_two_steps import bytes_tokenizer
from transformers import LlamaConfig, LlamaForCausalLM
tokenizer = bytes_tokenizer()
shape = dict(hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=2)
model = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), pad_token_id=0, eos_token_id=0, bos_token_id=0, **shape))
model.save_pretrained(sys.argv[1]); tokenizer.save_pretrained(sys.argv[1])
"""
    subprocess.run([sys.executable, "-c", program, str(tmp_path / "tiny")], check=True, capture_output=True)
    recipe(
        model={"name": "tiny"},
        prompts=[{"family": "sum", "source": {"kind": "grid", "fields": {"a": [*range(8)], "b": [*range(8)]}},
            "template": "What is {{ a }} and {{ b }}?", "reference_template": "{{ a + b }}"}],
        dedupe={"within_prompt": 0.7},
        near_miss={"common": 0.0},
        publish={"repo": str(tmp_path / "released")},
    )  # fmt: skip
    rows: list[dict[str, Any]] = []
    for a, b in itertools.product(range(8), repeat=2):
        question = Message("user", f"What is {a} and {b}?")
        changed = [variant.messages[-1] for _, variant in variants(Prompt("", "sum", (question,)), ("Please: {}",))]
        for message in [question, *changed]:
            texts = (f"{a + b}", f"{a + b} ", f"{a + b + 1}", "I cannot tell")
            rows += [{"prompt": message.content, "completion": text, "finish_reason": "stop"} for text in texts]
    (tmp_path / "answers.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.chdir(tmp_path)
    command = [*"study recipe.yaml --out study --temperatures 0,0.5,1,1.5 --samples 4 --wording".split(), "Please: {}"]
    assert main([*command, "--train", "--steps", "2"]) == 0
    assert "many answers" in capsys.readouterr().out
    training = json.loads((tmp_path / "study" / "study.json").read_text())["training"]
    assert [arm["name"] for arm in training["arms"]] == ["before", "one answer", "many answers", "near misses"]
    before, one_answer, *_ = training["arms"]
    assert before["pass_at_k"][0]["value"] == 0.5
    pairs = {(row["of"], row["less"]): row for row in training["differences"]}
    assert set(pairs) == {("one answer", "before"), ("many answers", "before"), ("many answers", "one answer"),
        ("near misses", "before"), ("near misses", "many answers")}  # fmt: skip
    assert {estimate["value"] for row in pairs.values() for estimate in (*row["pass_at_k"], row["distinct"])} == {0.0}
    assert one_answer["rows"] == training["trained_on"] == 64 - training["held_out"] == 32
    trained = [pq.read_table(tmp_path / f"study/training/{name}/rows.parquet") for name in ("one_answer", "many_answers")]
    held = {row["prompt_id"] for row in pq.read_table(
        tmp_path / "study/training/one_answer/held_out/prompts.parquet").to_pylist()}  # fmt: skip
    assert not held & {name for table in trained for name in table["prompt_id"].to_pylist()}
    assert trained[1].num_rows == 32  # "3" and "3 " are one solution
    assert not (tmp_path / "released").exists()
    folders = [tmp_path / "study" / "training" / name / "model" for name in ("one_answer", "many_answers", "near_misses")]
    weights = [(folder / "model.safetensors").read_bytes() for folder in folders]
    assert len({*weights, (tmp_path / "tiny" / "model.safetensors").read_bytes()}) >= 3  # one and many have the same rows
    stamps = [(folder / "model.safetensors").stat().st_mtime_ns for folder in folders]
    assert main([*command, "--train", "--steps", "2"]) == 0
    assert [(folder / "model.safetensors").stat().st_mtime_ns for folder in folders] == stamps
    assert "Diversity pays?" in (tmp_path / "study" / "study.html").read_text()
    assert main([*command, "--train", "--steps", "4"]) == 0
    again = [(folder / "model.safetensors").read_bytes() for folder in folders]
    assert all(earlier != later for earlier, later in zip(weights, again, strict=True))


def test_training_that_is_impossible_is_refused_before_anything_is_drawn(
    recipe: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = recipe()
    assert run_small_study(path, "--train") == 1
    assert "of 4 prompts 2 would be held out and 2 trained on; wanted 8 of each" in capsys.readouterr().err
    adapted = recipe(engine={"kind": "vllm"}, model={"adapter": "tuned"})
    write_adapter(adapted.parent / "tuned")
    assert run_small_study(adapted, "--train") == 1
    assert "--train: training starts from the weights of model.name; merge model.adapter" in capsys.readouterr().err
    path = recipe()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert run_small_study(path, "--train") == 1
    assert "--train: TRL is not installed; run `pip install 'thresher[train]'`" in capsys.readouterr().err
    assert not (tmp_path / "study").exists()
