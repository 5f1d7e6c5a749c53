"""Options of vLLM that load code or leave the folder need consent; others do not."""

from pathlib import Path
from typing import Any

import pytest

from filters import engine_options

pytestmark = pytest.mark.usefixtures("untrusting")


@pytest.mark.parametrize(
    "options",
    [
        {"trust_remote_code": True},
        {"trust_remote_code": 1},
        {"worker_cls": "evil"},
        {"worker_extension_cls": "evil.Extension"},
        {"scheduler_cls": "evil.Scheduler"},
        {"logits_processors": ["evil:Processor"]},
        {"reasoning_parser_plugin": "evil.py"},
        {"tool_parser_plugin": "evil"},
        {"io_processor_plugin": "evil"},
        {"model_class_overrides": {"Llama": "evil"}},
        {"code_revision": "main"},
        {"distributed_executor_backend": "evil.Executor"},
        {"tokenizer_mode": "evil.Tokenizer"},
        {"load_format": "evil:Loader"},
        {"compilation_config": {"backend": "evil.backend"}},
        {"kv_transfer_config": {"kv_connector": "Evil", "kv_connector_module_path": "evil"}},
        {"speculative_config": {"method": "custom_class", "model": "evil.Proposer"}},
        {"structured_outputs_config": {"reasoning_parser_plugin": "evil"}},
        {"log_config_file": "logging.json"},
        {"additional_config": {"any": "thing"}},
        {"hf_overrides": {"auto_map": {"AutoConfig": "evil--evil.Config"}, "trust_remote_code": True}},
        {"download_dir": "/somewhere/else"},
        {"allowed_local_media_path": "/"},
        {"profiler_config": {"torch_profiler_dir": "../../elsewhere"}},
        {"a_new_option": "evil.module.Class"},
        {"otlp_traces_endpoint": "http://127.0.0.1:1"},
        {"master_addr": "elsewhere", "nnodes": 2},
        {"kv_transfer_config": {"kv_connector": "P2pNcclConnector", "kv_ip": "6.6.6.6"}},
        {"download_dir": "x/../../../etc"},
        {"tokenizer": "./../../home"},
        {"tokenizer": "link"},
        {"speculative_config": {"model": "link/new", "num_speculative_tokens": 1}},
        {"kv_transfer_config": {"kv_connector_extra_config": {"shared_storage_path": "./../../etc"}}},
        {"allowed_local_media_path": "./../../etc"},
        {"profiler_config": {"torch_profiler_dir": "x/../../../tmp/o"}},
        {"compilation_config": {"cache_dir": "cache"}},
        {"compilation_config": {"inductor_compile_config": {"a_cache_dir": "cache"}}},
        {"load_format": "ipc_cache", "model_loader_extra_config": {"socket_path": "sock"}},
        {"model_loader_extra_config": {"socket_path": "sock"}},
        {"model_loader_extra_config": {"tensorizer_uri": "model.tensors"}},
        {"a": [{"worker_cls": "x"}]},
        {"a": [[{"b": {"plugin": "x"}}]]},
        {"a": [{"b": "evil.Class"}]},
        {"served_model_name": {"worker_cls": "x"}},
    ],
)
def test_options_that_load_code_or_leave_the_folder_are_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, options: dict[str, Any]
) -> None:
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "link").symlink_to(tmp_path)
    monkeypatch.chdir(tmp_path / "work")
    refused = engine_options.refused(options)

    assert refused is not None
    assert refused[0] in options
    assert "--trust-code" in refused[1]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"trust_remote_code": False},
        {"worker_extension_cls": ""},
        {"logits_processors": None},
        {"quantization": "fp8", "kv_cache_dtype": "fp8_e5m2", "max_num_batched_tokens": 8192},
        {"distributed_executor_backend": "mp", "tokenizer_mode": "slow", "load_format": "dummy"},
        {"speculative_config": {"method": "ngram", "num_speculative_tokens": 3, "prompt_lookup_max": 4}},
        {"speculative_config": {"model": "Qwen/Qwen2.5-0.5B", "num_speculative_tokens": 3}},
        {"hf_overrides": {"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}},
        {"compilation_config": {"cudagraph_capture_sizes": [1, 2]}},
        {"limit_mm_per_prompt": {"image": 0}},
        {"revision": "v1.0", "served_model_name": "small"},
        {"served_model_name": "gpt.oss", "device": "cuda:0"},
        {"compilation_config": {"splitting_ops": ["vllm.unified_attention"], "custom_ops": ["+rms_norm"]}},
        {"tokenizer": "tokenizers/mine", "download_dir": "./models"},
    ],
)
def test_plain_options_need_no_consent(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, options: dict[str, Any]) -> None:
    """Also in the home folder, where a name of the Hub is no path."""
    monkeypatch.chdir(tmp_path)
    assert engine_options.refused(options) is None
    monkeypatch.setenv("HOME", str(tmp_path))
    if "download_dir" not in options:
        assert engine_options.refused(options) is None


def test_every_option_of_vllm_that_is_named_after_code_is_refused() -> None:
    """Those of the installed vLLM, by their names; a newer one may have more."""
    from importlib.util import find_spec

    if (found := find_spec("vllm")) is None or found.origin is None:
        pytest.skip("vLLM is not installed")
    text = (Path(found.origin).parent / "engine" / "arg_utils.py").read_text()
    fields = text[text.index("class EngineArgs") :].splitlines()
    names = [line.strip().partition(":")[0] for line in fields if line.startswith("    ") and line[4:5].isalpha() and ":" in line]
    parts = {"cls", "plugin", "plugins", "code", "module", "class", "processors"}
    code = {name for name in names if parts & set(name.split("_")) and name != "max_lora_cls_labels"}

    assert {"worker_cls", "trust_remote_code", "logits_processors"} <= code
    assert {name for name in code if engine_options.refused({name: "evil"}) is None} == set()
