"""LoRA adapters: found, identified, compared with their model; and samples drawn with one by vLLM."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import pytest

from helpers import known
from helpers.lora import write_adapter, write_model
from helpers.runs import pool_rows, run_recipe
from schemas.engines import ModelSpec
from thresher.errors import ModelError
from thresher.inputs import adapters, models
from thresher.inputs.adapters import CONFIG, WEIGHTS, Adapter
from thresher.inputs.models import embedded_model
from thresher.pool.run import open_run


def resolve(base: Path, name: str = "adapter", model: str = "small") -> Adapter:
    return adapters.resolve(name, base=base, model=model, model_path=str(base / "model"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model of two layers, and an adapter of it."""
    write_model(tmp_path / "model")
    write_adapter(tmp_path / "adapter", layers=2)
    return tmp_path


def test_a_directory_is_identified_by_its_bytes(folder: Path) -> None:
    """A changed scale or a changed weight is another adapter."""
    first = resolve(folder)
    write_adapter(folder / "adapter", layers=2, lora_alpha=32)
    scaled = resolve(folder)
    write_adapter(folder / "adapter", layers=2, lora_alpha=32, seed=1)
    changed = resolve(folder)

    assert (first.name, first.path, first.rank) == ("adapter", str(folder / "adapter"), 8)
    assert len({first.revision, scaled.revision, changed.revision}) == 3
    assert first.label == f"adapter@{first.revision}"


def test_a_hub_adapter_has_its_commit_as_revision(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def download(name: str, **options: Any) -> str:
        asked.append((name, options["revision"]))
        write_adapter(folder / "snapshots" / "abc123", layers=2)
        return str(folder / "snapshots" / "abc123")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    labels = [resolve(folder, name).label for name in ("org/tuned", "org/tuned@main")]

    assert labels == ["org/tuned@abc123"] * 2
    assert asked == [("org/tuned", None), ("org/tuned", "main")]


def test_an_adapter_that_is_not_on_the_hub_is_named(folder: Path) -> None:
    """The tests are offline."""
    with pytest.raises(ModelError, match=r"model.adapter 'org/none': not downloaded; check its name"):
        resolve(folder, "org/none")


@pytest.mark.parametrize("name", ["nowhere", "./nowhere"])
def test_an_absent_directory_is_named(folder: Path, name: str) -> None:
    with pytest.raises(ModelError, match=r"nowhere has no adapter_config.json and no adapter_model.safetensors; give the"):
        resolve(folder, name)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (
            {"inputs": 960},
            r"q_proj reads 960 numbers, that of small 576: an adapter of another model; it was trained on /home/me",
        ),
        ({"layers": 3}, r"it changes layers.2.self_attn.q_proj, which small does not have: an adapter of another model"),
        (
            {"base_model_name_or_path": "org/big", "inputs": 64},
            r"it was trained on org/big; name that model, or an adapter of small",
        ),
    ],
    ids=["width", "layers", "named"],
)
def test_an_adapter_of_another_model_is_refused(folder: Path, settings: dict[str, Any], expected: str) -> None:
    write_adapter(folder / "adapter", **{"layers": 2, **settings})

    with pytest.raises(ModelError, match=expected):
        resolve(folder)


def test_a_module_that_writes_another_width_is_refused(folder: Path) -> None:
    """lora_A may fit by chance where lora_B does not."""
    write_model(folder / "model", hidden=576)
    matrices = write_adapter(folder / "adapter", layers=2)
    name = next(name for name in matrices if name.endswith("lora_B.weight"))
    matrices[name] = matrices[name][:-1]
    from safetensors.numpy import save_file

    save_file(matrices, folder / "adapter" / WEIGHTS)

    with pytest.raises(ModelError, match=r"q_proj writes 575 numbers, that of small 576"):
        resolve(folder)


def test_only_a_warning_where_shapes_agree_and_names_do_not(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    """An adapter of the base model is often drawn on its instruct version. A local path tells nothing."""
    write_adapter(folder / "adapter", layers=2, base_model_name_or_path="org/base")
    resolve(folder, model="org/instruct")

    assert "was trained on org/base, and fits org/instruct by its shapes" in caplog.text
    caplog.clear()
    write_adapter(folder / "adapter", layers=2)
    resolve(folder, model="org/instruct")
    assert caplog.text == ""


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"peft_type": "IA3"}, r"its adapter_config.json says peft_type IA3; wanted LORA"),
        ({"use_dora": True}, r"it has DoRA, which vLLM cannot load; merge it"),
        ({"modules_to_save": ["lm_head"], "bias": "all"}, r"it has whole modules \(modules_to_save\), biases"),
    ],
    ids=["kind", "dora", "modules"],
)
def test_what_vllm_cannot_load_is_refused_before_it_starts(folder: Path, settings: dict[str, Any], expected: str) -> None:
    write_adapter(folder / "adapter", layers=2, **settings)

    with pytest.raises(ModelError, match=expected):
        resolve(folder)


@pytest.mark.parametrize(
    ("file", "text", "expected"),
    [(CONFIG, "[1]", "holds no JSON object"), (WEIGHTS, "x", "is no safetensors"), (WEIGHTS, "x" * 99, "longer than the file")],
    ids=["config", "short", "noise"],
)
def test_a_damaged_file_is_named(folder: Path, file: str, text: str, expected: str) -> None:
    (folder / "adapter" / file).write_text(text)

    with pytest.raises(ModelError, match=expected):
        resolve(folder)


def test_packed_weights_are_compared_by_name(folder: Path) -> None:
    """Quantised weights have other shapes than the matrices that they hold."""
    from safetensors.numpy import save_file

    packed = {f"model.layers.{n}.self_attn.{m}.qweight": np.zeros((4, 4), np.int32) for n in (0, 1) for m in ("q_proj", "v_proj")}
    save_file(packed, folder / "model" / "model.safetensors")
    assert resolve(folder).rank == 8
    write_adapter(folder / "adapter", layers=3)
    with pytest.raises(ModelError, match=r"it changes layers.2.self_attn.q_proj"):
        resolve(folder)


def test_a_server_has_the_adapter_by_its_name(tmp_path: Path) -> None:
    """Nothing is looked up, and the model keeps its own name."""
    model = models.of_spec(ModelSpec(name="small", adapter="tuned"), served=True, base=tmp_path)

    assert (model.name, model.served_name, known(model.adapter).label) == ("small", "tuned", "tuned")


# -- on vLLM -----------------------------------------------------------------------------------------------------------


def logprobs_of(model: Any, rows: list[dict[str, Any]]) -> list[Any]:
    """The log-probability of each sampled token of some samples, computed by transformers."""
    import torch

    lists = []
    for row in rows:
        prompt, tokens = row["prompt_ids"], row["completion_ids"]
        with torch.no_grad():
            logits = model(torch.tensor([prompt + tokens])).logits[0, len(prompt) - 1 : -1].float()
        lists.append(torch.log_softmax(logits, -1)[range(len(tokens)), tokens].numpy())
    return lists


@pytest.mark.slow
@pytest.mark.usefixtures("warm_engines")
def test_samples_are_drawn_with_an_adapter_of_peft_and_identified_by_it(recipe: Callable[..., Path], tmp_path: Path) -> None:
    """vLLM's log-probabilities are those of the model that PEFT trained for a few steps, and not those of its base."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.manual_seed(0)
    tokenizer: Any = AutoTokenizer.from_pretrained(embedded_model().path)
    weights = AutoModelForCausalLM.from_pretrained(embedded_model().path, dtype=torch.float32)
    tuned: Any = get_peft_model(
        weights, LoraConfig(r=8, lora_alpha=16, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
    )
    chat = [{"role": "user", "content": "Capital of France?"}, {"role": "assistant", "content": "Zanzibar, of course."}]
    batch = tokenizer(tokenizer.apply_chat_template(chat, tokenize=False), add_special_tokens=False, return_tensors="pt")
    optimizer = torch.optim.AdamW((part for part in tuned.parameters() if part.requires_grad), lr=5e-3)
    losses = []
    for _ in range(8):
        loss = tuned(**batch, labels=batch["input_ids"]).loss
        losses.append(loss.item())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    tuned.save_pretrained(tmp_path / "adapter")
    engine = {"kind": "vllm", "enforce_eager": True, "max_model_len": 256, "kv_cache_gib": 1, "dtype": "float32"}
    path = recipe(engine=engine, filters=[{"name": "finished"}], model={"adapter": "adapter"})
    small = ("sampling.samples_per_prompt=4", "prompts.0.limit=1", "sampling.calibration.standard_error=0")
    run_recipe(path, tmp_path / "run", *small)
    rows = pool_rows(tmp_path / "run")
    adapter = known(known(open_run(tmp_path / "run").model).adapter)
    tuned_logprobs = logprobs_of(tuned.eval(), rows)
    with tuned.disable_adapter():
        plain = logprobs_of(tuned, rows)
    drawn = [np.array(row["logprobs"]) for row in rows]

    assert losses[-1] < losses[0] / 2
    assert {row["adapter"] for row in rows} == {f"adapter@{adapter.revision}"}
    assert max(np.abs(a - b).max() for a, b in zip(drawn, tuned_logprobs, strict=True)) < 0.02
    assert np.mean([np.abs(a - b).mean() for a, b in zip(drawn, plain, strict=True)]) > 0.1
    assert json.loads(rows[0]["sampling"])["engine"] == {"dtype": "float32"}
