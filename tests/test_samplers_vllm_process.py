"""How vLLM is started: options, environment, arguments, tokeniser. tests/test_samplers_vllm_offline.py starts real engines."""

import json
import os
import signal
from pathlib import Path

import pytest

from helpers.small_model import write_model
from schemas.engines import VllmEngine
from schemas.sample import Message
from thresher.errors import EngineError
from thresher.inputs.adapters import Adapter
from thresher.inputs.models import Model, embedded_model
from thresher.samplers import vllm_process
from thresher.samplers.vllm_process import (
    RESERVED_OPTIONS,
    Tokeniser,
    VllmProcess,
    adapter_arguments,
    check_options,
    engine_arguments,
    in_words,
    set_environment,
    unknown_options,
)

HELLO = (Message("system", "Be brief."), Message("user", "Hello"))


@pytest.mark.parametrize("name", RESERVED_OPTIONS)
def test_options_that_decide_what_is_sampled_are_reserved(name: str) -> None:
    with pytest.raises(EngineError, match=f"engine.options.{name}: thresher sets this itself; remove it from the recipe"):
        check_options(VllmEngine(options={"block_size": 32, name: 1}))


def test_a_pooling_engine_reserves_more_options() -> None:
    spec = VllmEngine(options={"runner": "generate"})
    check_options(spec)
    with pytest.raises(EngineError, match=r"engine.options.runner"):
        check_options(spec, (*RESERVED_OPTIONS, "runner"))


def test_arguments_are_the_recipes_and_nothing_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vllm_process, "dtype_for", lambda dtype: f"{dtype} here")
    spec = VllmEngine(max_model_len=512, enforce_eager=True, options={"block_size": 32})

    assert engine_arguments(spec) == {
        "dtype": "auto here",
        "tensor_parallel_size": 1,
        "enforce_eager": True,
        "max_model_len": 512,
    }


def test_data_parallel_ranks_are_an_argument_unless_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that the same engine may have it in `options`."""
    monkeypatch.setattr(vllm_process, "dtype_for", lambda dtype: dtype)

    assert engine_arguments(VllmEngine(data_parallel_size=2))["data_parallel_size"] == 2
    assert "data_parallel_size" not in engine_arguments(VllmEngine(options={"data_parallel_size": 2}))


@pytest.mark.parametrize(("rank", "room"), [(4, 8), (8, 8), (9, 16), (300, 320)])
def test_an_engine_has_room_for_its_adapter(rank: int, room: int) -> None:
    adapted = Model("m", "m", None, None, None, None, Adapter("tuned", "/tuned", "abc", rank))

    assert adapter_arguments(adapted) == {"enable_lora": True, "max_lora_rank": room, "max_loras": 1}
    assert adapter_arguments(Model("m", "m", None, None, None, None)) == {}


def test_an_adapter_of_a_rank_that_vllm_does_not_take_is_refused() -> None:
    adapted = Model("m", "m", None, None, None, None, Adapter("tuned", "/tuned", "abc", 513))

    with pytest.raises(EngineError, match=r"model.adapter 'tuned': its rank is 513, and vLLM takes up to 512; merge it"):
        adapter_arguments(adapted)


def test_the_users_environment_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    changed = ["VLLM_CPU_KVCACHE_SPACE", "TORCHDYNAMO_DISABLE", "VLLM_LOGGING_LEVEL", "PYTHONWARNINGS", "TORCH_LOGS"]
    changed += ["TORCH_CPP_LOG_LEVEL", "VLLM_NO_USAGE_STATS", "TOKENIZERS_PARALLELISM", "VLLM_CPU_NUM_OF_RESERVED_CPU"]
    for name in changed:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("VLLM_LOGGING_LEVEL", "DEBUG")
    monkeypatch.setattr(os, "environ", {**os.environ})
    set_environment(VllmEngine(kv_cache_gib=2.6))

    assert os.environ["VLLM_LOGGING_LEVEL"] == "DEBUG"
    assert os.environ["VLLM_CPU_KVCACHE_SPACE"] == "3"
    assert "TORCHDYNAMO_DISABLE" not in os.environ
    set_environment(VllmEngine(enforce_eager=True))
    assert os.environ["TORCHDYNAMO_DISABLE"] == "1"


def test_an_error_is_named_by_its_class_and_message() -> None:
    assert in_words(ValueError("too long")) == "ValueError: too long"


def test_a_process_that_was_not_started_is_closed() -> None:
    process = VllmProcess(VllmEngine(), Model("m", "m", None, None, None, None), thread_name="test")
    process.close()

    assert not process.is_dead()


def test_coroutines_run_on_the_loop_until_it_is_closed() -> None:
    """What is left to do on the loop is done before it stops."""
    process = VllmProcess(VllmEngine(), Model("m", "m", None, None, None, None), thread_name="test")
    process.start_loop()
    calls: list[str] = []

    async def call(name: str) -> str:
        calls.append(name)
        return name

    async def last() -> None:
        await call("last")

    async def blocked() -> set[int]:
        return set(signal.pthread_sigmask(signal.SIG_BLOCK, set()))

    assert process.run(call("first")) == "first"
    assert signal.SIGINT in process.run(blocked())  # as in the processes that are started there
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, set())
    process.close(before_stop=last)
    assert calls == ["first", "last"]
    assert process.loop.is_closed()


def test_options_that_vllm_does_not_know_are_named() -> None:
    pytest.importorskip("vllm")

    assert unknown_options(VllmEngine(options={"block_size": 16})) == []
    (message,) = unknown_options(VllmEngine(options={"block_sise": 16, "enable_prefix_caching": False}))
    assert message.startswith("engine.options.block_sise: vLLM 0.")
    assert "has no such option; did you mean block_size" in message


# -- the tokeniser -----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_chat_prompt_ends_where_the_answer_starts() -> None:
    tokeniser = Tokeniser(embedded_model(), "auto")
    open_end, closed = (tokeniser.prompt(tokeniser.text(HELLO, to_continue=value)) for value in (True, False))

    assert tokeniser.format == "chat"
    assert open_end[: len(closed)] == closed
    assert len(open_end) > len(closed)
    text = tokeniser.text(HELLO, to_continue=True)
    assert tokeniser.lengths([text, text + " again"]).tolist() == [len(open_end), len(open_end) + 1]


@pytest.mark.slow
def test_a_text_prompt_is_the_contents_alone() -> None:
    tokeniser = Tokeniser(embedded_model(), "text")

    assert tokeniser.format == "text"
    assert tokeniser.prompt(tokeniser.text(HELLO, to_continue=True)) == tokeniser.completion("Be brief.\n\nHello")
    assert len(tokeniser.whole_text("word " * 3000)) >= 3000


@pytest.mark.slow
def test_chat_needs_a_template(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(embedded_model().path)
    tokenizer.chat_template = None
    tokenizer.save_pretrained(tmp_path)
    model = Model("plain", str(tmp_path), None, None, None, None)

    assert Tokeniser(model, "auto").format == "text"
    with pytest.raises(EngineError, match=r"plain: its tokenizer has no chat template, but model.prompt_format is chat"):
        Tokeniser(model, "chat")


@pytest.mark.slow
def test_code_in_the_folder_of_a_model_is_not_run(tmp_path: Path) -> None:
    """Unless the recipe says so and the user agrees; nor is the user asked on the terminal."""
    folder = write_model(tmp_path / "model")
    (folder / "own_code.py").write_text("from pathlib import Path\nPath(__file__).with_name('MARKER').touch()\nclass Own: pass\n")
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings |= {"auto_map": {"AutoTokenizer": ["own_code.Own", "own_code.Own"]}, "tokenizer_class": "Own"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))

    with pytest.raises(EngineError, match=r"own: the model comes with code of its own, .*trust_remote_code"):
        Tokeniser(Model("own", str(folder), None, None, None, None), "auto")
    assert not (folder / "MARKER").exists()
