"""Which settings of an engine identify a sample, and which change only speed or place."""

import dataclasses
import json
import re
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from schemas.engines import HttpEngine, ModelSpec, ReplayEngine, VllmEngine
from schemas.sample import Message
from schemas.sampling import Sampling
from thresher.estimators.calibration import Quota
from thresher.inputs import identity
from thresher.inputs.identity import OWN_SPEED_ONLY, SPEED_ONLY, VLLM_SPEED_ONLY, own_template, resolved_dtype, settings_of
from thresher.inputs.models import Model, embedded_model
from thresher.samplers.sampler import Group, anchor_parameters
from thresher.samplers.vllm_offline import VllmSampler

URL = ("http://127.0.0.1:1/v1",)


def model(folder: Path, template: str | None = "f" * 64, **config: Any) -> Model:
    (folder / "config.json").write_text(json.dumps({"dtype": "bfloat16", **config}))
    return Model("m", str(folder), "abc", None, template, 2048)


@pytest.fixture(autouse=True)
def on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identity, "built_for_cpus", lambda: False)


def test_default_settings_are_the_precision_alone(tmp_path: Path) -> None:
    assert settings_of(VllmEngine(), ModelSpec(), model(tmp_path)) == {"dtype": "bfloat16"}
    assert settings_of(HttpEngine(kind="openai_http", base_urls=URL), ModelSpec(), model(tmp_path)) == {}
    assert settings_of(ReplayEngine(kind="replay", path="x"), ModelSpec(), model(tmp_path)) == {}


@pytest.mark.parametrize(
    "options",
    [
        {"quantization": "fp8"},
        {"kv_cache_dtype": "fp8"},
        {"speculative_config": {"method": "ngram", "num_speculative_tokens": 3}},
        {"hf_overrides": {"rope_theta": 1.0}},
        {"load_format": "dummy"},
        {"an_option_of_a_later_version": 1},
    ],
    ids=lambda options: next(iter(options)),
)
def test_what_is_not_on_the_list_counts(tmp_path: Path, options: dict[str, Any]) -> None:
    """Also an option that nobody knows; those on the list are left out."""
    spec = VllmEngine(options={**options, "block_size": 32, "hf_token": "secret"})

    assert settings_of(spec, ModelSpec(), model(tmp_path)) == {"dtype": "bfloat16", "options": options}


def test_settings_on_the_list_do_not_count(tmp_path: Path) -> None:
    spec = VllmEngine(
        max_num_seqs=3, tensor_parallel_size=2, gpu_memory_utilization=0.5, kv_cache_gib=2, enforce_eager=True, tokens_in_flight=9
    )
    http = HttpEngine(kind="openai_http", base_urls=URL, requests_in_flight=3, silent_s=1, completions_per_request=2)

    assert settings_of(spec, ModelSpec(), model(tmp_path)) == {"dtype": "bfloat16"}
    assert settings_of(http, ModelSpec(), model(tmp_path)) == {}


def test_further_fields_of_requests_count(tmp_path: Path) -> None:
    spec = HttpEngine(
        kind="openai_http", base_urls=URL, extra_body={"reasoning_effort": "low"}, extensions="none", api="completions"
    )

    assert settings_of(spec, ModelSpec(), model(tmp_path)) == {
        "extra_body": {"reasoning_effort": "low"},
        "extensions": "none",
        "prompt_format": "text",
    }


@pytest.mark.parametrize(
    ("config", "counts"),
    [
        ({"rope_scaling": {"type": "longrope"}}, True),
        ({"rope_parameters": {"rope_type": "longrope"}}, True),
        ({"text_config": {"rope_scaling": {"rope_type": "longrope"}}}, True),
        ({"model_type": "llama4"}, True),
        ({"model_type": "llama", "rope_parameters": {"rope_type": "default"}}, False),
    ],
    ids=["phi3", "parameters", "inner", "llama4", "llama"],
)
def test_the_context_counts_where_a_model_computes_by_it(tmp_path: Path, config: dict[str, Any], counts: bool) -> None:
    settings = settings_of(VllmEngine(max_model_len=512), ModelSpec(), model(tmp_path, **config))

    assert settings == {"dtype": "bfloat16"} | ({"max_model_len": 512} if counts else {})


def test_the_template_counts_where_it_is_rendered_here(tmp_path: Path) -> None:
    """A server renders by its own; plain text has none."""
    chat, base = model(tmp_path), model(tmp_path, template=None)

    assert own_template(VllmEngine(), ModelSpec(), chat) == "f" * 64
    assert own_template(VllmEngine(), ModelSpec(prompt_format="text"), chat) is None
    assert own_template(HttpEngine(kind="openai_http", base_urls=URL), ModelSpec(), chat) is None
    assert settings_of(VllmEngine(), ModelSpec(), base)["prompt_format"] == "text"
    assert settings_of(VllmEngine(), ModelSpec(prompt_format="chat"), chat) == settings_of(VllmEngine(), ModelSpec(), chat)


@pytest.mark.parametrize(
    ("dtype", "config", "expected"),
    [
        ("float16", {"dtype": "bfloat16"}, "float16"),
        ("auto", {"torch_dtype": "float16"}, "float16"),
        ("auto", {"text_config": {"dtype": "bfloat16"}}, "bfloat16"),
        ("auto", {"dtype": "float32"}, "auto"),
        ("auto", {}, "auto"),
    ],
)
def test_auto_is_the_models_own_precision(dtype: str, config: dict[str, Any], expected: str) -> None:
    assert resolved_dtype(dtype, config) == expected


def test_auto_is_float32_on_a_cpu_without_avx512(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identity, "built_for_cpus", lambda: True)
    monkeypatch.setattr(identity, "lacks_avx512", lambda: True)

    assert resolved_dtype("auto", {"dtype": "bfloat16"}) == "float32"
    assert resolved_dtype("bfloat16", {}) == "bfloat16"


@pytest.mark.slow
def test_the_lists_name_settings_that_exist() -> None:
    """Those of vLLM are arguments of its engine, ours are settings of the recipe. None is on both."""
    arguments = pytest.importorskip("vllm.engine.arg_utils").AsyncEngineArgs
    names = {field.name for field in dataclasses.fields(arguments)}
    own = {*VllmEngine.model_fields, *HttpEngine.model_fields}

    assert sorted(set(VLLM_SPEED_ONLY) - names) == []
    assert sorted(set(OWN_SPEED_ONLY) - own) == []
    assert not set(VLLM_SPEED_ONLY) & set(OWN_SPEED_ONLY)
    assert all(SPEED_ONLY.values())


def test_the_list_is_documented() -> None:
    """Each setting, under its reason."""
    rows = re.findall(
        r"^\| ([^|]+) \| (`[^|]+) \|$", (Path(__file__).parents[1] / "docs" / "sampling.md").read_text("utf-8"), re.MULTILINE
    )
    documented = {name: reason for reason, names in rows for name in re.findall(r"`(\w+)`", names)}

    assert documented == dict(SPEED_ONLY)


def test_what_changes_numbers_is_not_on_the_list() -> None:
    """Names of vLLM that must never get there."""
    counting = {
        "dtype", "quantization", "quantization_config", "kv_cache_dtype", "mamba_cache_dtype", "speculative_config",
        "spec_method", "spec_model", "spec_tokens", "hf_overrides", "load_format", "model_impl", "attention_backend",
        "moe_backend", "logits_processors", "lora_dtype", "tokenizer_mode", "revision", "watermark_config", "compilation_config",
        "all2all_backend", "kv_offloading_backend", "trust_remote_code", "enable_mamba_cache_stochastic_rounding",
    }  # fmt: skip

    assert not counting & set(SPEED_ONLY)


@pytest.mark.slow
def test_the_platform_is_the_one_that_vllm_chooses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without importing it, which takes seconds."""
    platforms = pytest.importorskip("vllm.platforms")
    monkeypatch.undo()

    assert identity.built_for_cpus() == platforms.current_platform.is_cpu()


# -- on vLLM -----------------------------------------------------------------------------------------------------------


def greedy_logprobs(spec: VllmEngine) -> list[Any]:
    """The greedy completions of some prompts by an engine: their log-probabilities."""
    starts = count(1)
    parameters = anchor_parameters(Sampling(max_tokens=24))
    prompts = [Message("user", f"Tell me a fact about the number {number}.") for number in range(6)]
    with (
        VllmSampler(
            spec,
            embedded_model(),
            prompt_format="chat",
            quota=Quota(standard_error=0),
            seeds="engine",
            start=lambda: (next(starts), 1),
        ) as sampler,
        sampler.stream() as stream,
    ):
        stream.submit([Group(number, (prompt,), 1, parameters) for number, prompt in enumerate(prompts)])
        drawn: dict[int, Any] = {}
        while len(drawn) < len(prompts):
            drawn |= {group.number: group.completions[0].logprobs for group in stream.take(1.0)}
    return [drawn[number] for number in range(len(prompts))]


@pytest.mark.slow
@pytest.mark.usefixtures("warm_engines")
def test_settings_on_the_list_change_no_number_and_others_do() -> None:
    """Greedy completions of SmolLM2 by three engines."""
    plain = VllmEngine(enforce_eager=True, max_model_len=256, kv_cache_gib=1, dtype="float32")
    speed = {
        "block_size": 32,
        "enable_prefix_caching": False,
        "enable_chunked_prefill": True,
        "max_num_batched_tokens": 64,
        "async_scheduling": False,
        "scheduling_policy": "priority",
        "enable_log_requests": True,
    }
    before = greedy_logprobs(plain)
    fast = greedy_logprobs(plain.model_copy(update={"options": speed, "max_num_seqs": 2, "max_model_len": 512}))
    other = greedy_logprobs(plain.model_copy(update={"options": {"hf_overrides": {"rms_norm_eps": 0.1}}}))

    assert set(speed) <= set(SPEED_ONLY)
    for a, b in zip(before, fast, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-3)
    assert max(np.abs(a[:1] - b[:1]).max() for a, b in zip(before, other, strict=True)) > 0.01
