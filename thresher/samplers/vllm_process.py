"""Starts and ends vLLM's engine: its environment, arguments, processes and tokeniser."""

import asyncio
import json
import os
import re
import signal
import threading
import warnings
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from contextlib import suppress
from dataclasses import fields
from importlib import import_module
from multiprocessing import resource_tracker
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from filters import engine_options, trust
from schemas.engines import VllmEngine
from schemas.sample import Message
from schemas.suggest import did_you_mean
from thresher.errors import EngineError
from thresher.inputs.identity import lacks_avx512
from thresher.inputs.models import Model
from thresher.samplers.orphans import Guard
from thresher.samplers.sampler import plain_text

if TYPE_CHECKING:
    from vllm.lora.request import LoRARequest

T = TypeVar("T")

_BYTE = re.compile(r"<0x[0-9A-F]{2}>")

RESERVED_OPTIONS = (
    "model",
    "tokenizer",
    "seed",
    "generation_config",
    "override_generation_config",
    "logprobs_mode",
    "max_logprobs",
    "reasoning_config",
)
"""Engine options that a recipe may not set: they decide what is sampled or recorded."""


LORA_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""The room for adapters that vLLM can be started with."""


def check_options(spec: VllmEngine, reserved: Iterable[str] = RESERVED_OPTIONS) -> None:
    """Raise EngineError if the recipe sets a reserved engine option, or one that loads code without the user's consent."""
    names = sorted(set(spec.options) & set(reserved))
    if names:
        raise EngineError(f"engine.options.{names[0]}: thresher sets this itself; remove it from the recipe")
    try:
        refused = engine_options.refused(spec.options)
    except trust.ConfigError as error:
        raise EngineError(str(error)) from error
    if refused is not None:
        name, why = refused
        raise EngineError(f"engine.options.{name}: {why}")


def unknown_options(spec: VllmEngine) -> list[str]:
    """Return a message for each engine option of the recipe that the installed vLLM does not know. Importing its list takes
    seconds. Raises ImportError if vLLM is not installed."""
    if not spec.options:
        return []
    set_environment(spec)
    from vllm import __version__
    from vllm.engine.arg_utils import AsyncEngineArgs

    known = {field.name for field in fields(AsyncEngineArgs)}
    return [
        f"engine.options.{name}: vLLM {__version__} has no such option{did_you_mean(name, known, most=3)}"
        for name in sorted(set(spec.options) - known)
    ]


def engine_arguments(spec: VllmEngine) -> dict[str, Any]:
    """Return the recipe's engine as arguments of vLLM, without its further `options`."""
    arguments = {
        "dtype": dtype_for(spec.dtype),
        "tensor_parallel_size": spec.tensor_parallel_size,
        "enforce_eager": spec.enforce_eager,
        "max_model_len": spec.max_model_len,
        "max_num_seqs": spec.max_num_seqs,
        "gpu_memory_utilization": spec.gpu_memory_utilization,
    }
    if spec.data_parallel_size > 1:
        arguments["data_parallel_size"] = spec.data_parallel_size
    return {name: value for name, value in arguments.items() if value is not None}


def dtype_for(dtype: str) -> str:
    """Return the precision to load a model with.

    `auto` is the model's own precision, but float32 on a CPU without AVX-512: there bfloat16 is emulated and 8 times slower.
    """
    from vllm.platforms import current_platform

    return "float32" if dtype == "auto" and current_platform.is_cpu() and lacks_avx512() else dtype


def adapter_arguments(model: Model) -> dict[str, Any]:
    """Return what vLLM is told about the model's adapter, as its arguments: none without one."""
    if model.adapter is None:
        return {}
    rank = next((room for room in LORA_RANKS if room >= model.adapter.rank), None)
    if rank is None:
        raise EngineError(
            f"model.adapter {model.adapter.name!r}: its rank is {model.adapter.rank}, and vLLM takes up to {LORA_RANKS[-1]}; "
            "merge it into its model"
        )
    return {"enable_lora": True, "max_lora_rank": rank, "max_loras": 1}


def set_environment(spec: VllmEngine) -> None:
    """Set the environment variables that vLLM reads when it is imported, unless the user has set them."""
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    # For the engine's processes, which would write to the terminal.
    noise = "ignore:resource_tracker:UserWarning,ignore::FutureWarning:vllm.triton_utils.dispatcher"
    os.environ.setdefault("PYTHONWARNINGS", noise)
    os.environ.setdefault("TORCH_LOGS", "-all")
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("VLLM_CPU_NUM_OF_RESERVED_CPU", "0")  # the front end needs no core of its own on a small machine
    if spec.enforce_eager:  # vLLM still compiles a small function, which needs a C++ compiler and 20 s at the first sample
        os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")
    if spec.kv_cache_gib is not None:
        os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", str(max(1, round(spec.kv_cache_gib))))


def in_words(error: BaseException) -> str:
    """Return an error of vLLM as text: its class and message."""
    return f"{type(error).__name__}: {error}"


class Tokeniser:
    """The tokeniser of a model. Threads may share it."""

    def __init__(self, model: Model, prompt_format: str, engine: VllmEngine | None = None) -> None:
        """Load it. Code in the model's folder runs only if the engine's options say so, which `check_options` has allowed."""
        from transformers import AutoTokenizer

        code = bool(engine and engine.options.get("trust_remote_code"))
        try:
            self._tokenizer: Any = AutoTokenizer.from_pretrained(model.path, trust_remote_code=code)
        except ValueError as error:
            if code or "trust_remote_code" not in str(error):
                raise
            raise EngineError(
                f"{model.name}: the model comes with code of its own, which is not run; if you trust it, set "
                "engine.options.trust_remote_code to true and pass --trust-code"
            ) from error
        self._lock = threading.Lock()
        has_template = getattr(self._tokenizer, "chat_template", None) is not None
        if prompt_format == "chat" and not has_template:
            raise EngineError(
                f"{model.name}: its tokenizer has no chat template, but model.prompt_format is chat; set it to text or auto"
            )
        self.format = "chat" if has_template and prompt_format != "text" else "text"

    def text(
        self, messages: Sequence[Message], *, to_continue: bool, tools: str | None = None, template: str | None = None
    ) -> str:
        """Return messages as text, rendered by the chat template if the format is `chat`; with `to_continue`, up to where the
        model's answer starts. `tools` and `template` (further arguments of the template) are JSON text."""
        if self.format == "text":
            return plain_text(messages)
        turns = [message.as_chat() for message in messages]
        further = {} if template is None else json.loads(template)
        with self._lock:
            return str(
                self._tokenizer.apply_chat_template(
                    turns,
                    tools=None if tools is None else json.loads(tools),
                    tokenize=False,
                    add_generation_prompt=to_continue,
                    **further,
                )
            )

    def prompt(self, text: str) -> list[int]:
        """Return the tokens of a prompt that `text` rendered."""
        with self._lock:
            return list(self._tokenizer.encode(text, add_special_tokens=self.format == "text"))

    def lengths(self, texts: Sequence[str]) -> NDArray[np.int64]:
        """Return the number of tokens of prompts that `text` rendered (n,)."""
        with self._lock:
            encoded = self._tokenizer(list(texts), add_special_tokens=self.format == "text", truncation=False, verbose=False)
        return np.array([len(tokens) for tokens in encoded["input_ids"]], np.int64)

    def token_bytes(self) -> NDArray[np.int32]:
        """Return the bytes of the text of each token (V,). Spellings of byte-level BPE have one character for each byte; others
        write a space as U+2581 and a single byte as <0xE2>."""
        with self._lock:
            spellings = self._tokenizer.convert_ids_to_tokens(range(len(self._tokenizer)))
            added = {int(number) for number in self._tokenizer.added_tokens_decoder}
        by_byte = any("\u0120" in (token or "") for token in spellings[:2000])
        lengths = [
            0 if token is None
            else len(token) if by_byte and number not in added
            else 1 if _BYTE.fullmatch(token)
            else len(token.replace("\u2581", " ").encode())
            for number, token in enumerate(spellings)
        ]  # fmt: skip
        return np.array(lengths, np.int32)

    def completion(self, text: str) -> list[int]:
        """Return the tokens of a text without special tokens."""
        with self._lock:
            return list(self._tokenizer.encode(text, add_special_tokens=False))

    def placed(self, text: str) -> tuple[list[int], NDArray[np.int32]]:
        """Return the T tokens of a text without special tokens, and where each ends in the text, in characters (T,)."""
        with self._lock:
            encoded = self._tokenizer(
                text, add_special_tokens=False, return_offsets_mapping=True, truncation=False, verbose=False
            )
        return list(encoded["input_ids"]), np.array([end for _, end in encoded["offset_mapping"]], np.int32)

    def continuing(self) -> NDArray[np.bool_]:
        """Return whether each token starts with a small letter of ASCII, so that it continues a word (V,)."""
        with self._lock:
            spellings = self._tokenizer.convert_ids_to_tokens(range(len(self._tokenizer)))
        return np.array(["a" <= (token or " ")[:1] <= "z" for token in spellings], bool)

    def whole_text(self, text: str) -> list[int]:
        """Return the tokens of a text with special tokens, however long it is."""
        with self._lock:
            return list(self._tokenizer.encode(text, truncation=False, verbose=False))


class VllmProcess:
    """vLLM's AsyncLLM on an event loop of its own thread, and the processes it starts.

    The offline `LLM` is not used: it waits forever when its engine process dies, and it cannot return finished groups while new
    ones enter.
    """

    loop: asyncio.AbstractEventLoop

    def __init__(self, spec: VllmEngine, model: Model, *, thread_name: str) -> None:
        self._spec, self._model, self._thread_name = spec, model, thread_name
        self._thread: threading.Thread | None = None
        self._guard = Guard()
        self.engine: Any = None
        """The AsyncLLM; None while there is none."""

    def start_loop(self) -> None:
        """Start the thread, which has no engine yet."""
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run_loop, name=self._thread_name, daemon=True)
        self._thread.start()

    def _run_loop(self) -> None:
        """Run the loop. Processes that are started here do not see Ctrl-C, which is blocked here: this process ends them."""
        resource_tracker.ensure_running()  # started later it would unblock it again
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        self.loop.run_forever()

    def load(self) -> Any:
        """Import vLLM and return the module. Raises EngineError if it is not installed."""
        set_environment(self._spec)
        try:
            warnings.filterwarnings("ignore", category=FutureWarning, module="vllm")
            vllm, *_ = [import_module(name) for name in ("vllm", "transformers", "vllm.v1.engine.async_llm")]
        except ImportError as error:
            raise EngineError(f"vLLM cannot be imported ({error}); install thresher[cpu] or, on a GPU, thresher[gpu]") from error
        return vllm

    def start(self, **arguments: Any) -> Any:
        """Start the engine with the recipe's arguments and further ones; return vLLM's configuration. Raises EngineError."""
        from vllm.engine.arg_utils import AsyncEngineArgs
        from vllm.v1.engine.async_llm import AsyncLLM

        try:
            options = AsyncEngineArgs(
                model=self._model.path,
                disable_log_stats=True,
                use_tqdm_on_load=False,
                **engine_arguments(self._spec),
                **arguments,
                **(adapter_arguments(self._model) | self._spec.options),
            )
        except TypeError as error:
            raise EngineError(f"engine.options: {error}; see vLLM's engine arguments") from error

        async def build() -> Any:
            return AsyncLLM.from_engine_args(options)

        with self._guard.watching():
            try:
                config = options.create_engine_config()
                self.engine = self.run(build())
            except Exception as error:
                kind = " as a pooling model" if arguments.get("runner") == "pooling" else ""
                raise EngineError(f"vLLM could not start {self._model.path}{kind}: {in_words(error)}") from error
        return config

    def load_adapter(self) -> "LoRARequest | None":
        """Load the model's adapter into the running engine; return what a request names it by. Raises EngineError: otherwise
        the first request would fail."""
        adapter = self._model.adapter
        if adapter is None:
            return None
        from vllm.lora.request import LoRARequest

        request = LoRARequest(adapter.label, 1, adapter.path)
        try:
            self.run(self.engine.add_lora(request))
        except Exception as error:
            raise EngineError(f"model.adapter {adapter.name!r}: vLLM cannot load it: {in_words(error)}") from error
        return request

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the loop, from another thread, and return its result."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result()

    @property
    def ranks(self) -> int:
        """Data-parallel copies of the model that the engine runs; each decodes max_num_seqs sequences."""
        return len(self.engine.engine_core.engine_ranks_managed)

    def is_dead(self) -> bool:
        """Return whether the engine has died, whether or not it has reported that."""
        return self.engine is not None and (self.engine.errored or not self._guard.complete())

    def end(self, engine: Any) -> None:
        """End an engine, dead or alive, and all its processes."""
        if engine is not None:
            if engine.output_handler is not None:  # it would log the end of the engine as an error
                self.loop.call_soon_threadsafe(engine.output_handler.cancel)
            with suppress(Exception):
                engine.shutdown()
        self._guard.end()

    def close(self, before_stop: Callable[[], Awaitable[None]] | None = None) -> None:
        """End the engine, then the loop. `before_stop` runs on the loop first."""
        engine, self.engine = self.engine, None
        self.end(engine)

        async def stop() -> None:
            if before_stop is not None:
                await before_stop()
            self.loop.stop()

        if self._thread is None:
            return
        if self._thread.is_alive():
            asyncio.run_coroutine_threadsafe(stop(), self.loop)
            self._thread.join(timeout=10)
        if not self.loop.is_running():
            self.loop.close()
