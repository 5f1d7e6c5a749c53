"""vLLM in this process, on a GPU or a CPU: one warm engine that every shard in flight shares.

The engine is AsyncLLM on an event loop of its own thread, because the offline `LLM` waits for ever when its engine process
dies, and because finished groups can leave while new ones enter. Requests carry no seed: it crashes vLLM's CPU engine, and
children of neighbouring seeds share samples. The engine is seeded instead, from the run.
"""

import asyncio
import logging
import os
import queue
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np

from schemas.recipe import VllmEngine
from thresher.errors import EngineError, SourceError
from thresher.models import Model
from thresher.samplers.base import Completion, Drawn, EngineFacts, Group, plain_text
from thresher.samplers.orphans import Guard

if TYPE_CHECKING:
    from vllm import SamplingParams
    from vllm.outputs import CompletionOutput

log = logging.getLogger(__name__)

OURS = (
    "model",
    "tokenizer",
    "seed",
    "generation_config",
    "override_generation_config",
    "logprobs_mode",
    "max_logprobs",
)
"""Engine options that a recipe may not set: they decide what is sampled or recorded."""


class Room:
    """Bounds the sequences in flight, first come first served; a group larger than the room enters it alone."""

    def __init__(self, size: int) -> None:
        self._size, self._taken = size, 0
        self._turn, self._freed = asyncio.Lock(), asyncio.Event()

    async def enter(self, n: int) -> None:
        async with self._turn:
            while self._taken and self._taken + n > self._size:
                self._freed.clear()
                await self._freed.wait()
            self._taken += n

    def leave(self, n: int) -> None:
        self._taken -= n
        self._freed.set()


class VllmSampler:
    """A context manager that holds the engine; see thresher.samplers.base.Sampler."""

    facts: EngineFacts

    def __init__(self, spec: VllmEngine, model: Model, *, prompt_format: str, seed: Callable[[int], int]) -> None:
        taken = sorted(set(spec.options) & set(OURS))
        if taken:
            raise EngineError(f"engine.options.{taken[0]}: thresher sets this itself; take it out of the recipe")
        self._spec, self._model, self._format, self._seed = spec, model, prompt_format, seed
        self._starts, self._requests = 0, count()
        self._engine: Any = None
        self._starting, self._tokenising = threading.Lock(), threading.Lock()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="vllm", daemon=True)
        self._guard = Guard()
        self._waiting: set[queue.SimpleQueue[Drawn | BaseException]] = set()

    def __enter__(self) -> "VllmSampler":
        self._thread.start()
        try:
            self._start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    # -- the engine ----------------------------------------------------------------------------------------------------

    def _start(self) -> None:
        _environment(self._spec)
        try:
            warnings.filterwarnings("ignore", category=FutureWarning, module="vllm")
            import vllm
            from transformers import AutoTokenizer
            from vllm.engine.arg_utils import AsyncEngineArgs
            from vllm.v1.engine.async_llm import AsyncLLM
        except ImportError as error:
            raise EngineError(f"vLLM cannot be imported ({error}); install thresher[cpu] or, on a GPU, thresher[gpu]") from error
        options = {
            name: value
            for name in ("max_model_len", "max_num_seqs", "gpu_memory_utilization")
            if (value := getattr(self._spec, name)) is not None
        }
        self.seed = self._seed(self._starts)
        try:
            arguments = AsyncEngineArgs(
                model=self._model.path,
                seed=self.seed,
                generation_config="vllm",
                dtype=_dtype(self._spec.dtype),
                tensor_parallel_size=self._spec.tensor_parallel_size,
                enforce_eager=self._spec.enforce_eager,
                disable_log_stats=True,
                use_tqdm_on_load=False,
                **options,
                **self._spec.options,
            )
        except TypeError as error:
            raise EngineError(f"engine.options: {error}; see vLLM's engine arguments") from error

        async def build() -> Any:
            self._room = Room(2 * sequences)
            return AsyncLLM.from_engine_args(arguments)

        with self._guard.watching():
            try:
                config = arguments.create_engine_config()
                sequences = config.scheduler_config.max_num_seqs
                self._engine = asyncio.run_coroutine_threadsafe(build(), self._loop).result()
            except Exception as error:
                raise EngineError(f"vLLM would not start on {self._model.path}: {type(error).__name__}: {error}") from error
        self._starts += 1
        self._context = config.model_config.max_model_len
        self._tokenizer = AutoTokenizer.from_pretrained(self._model.path)
        has_template = getattr(self._tokenizer, "chat_template", None) is not None
        if self._format == "chat" and not has_template:
            raise EngineError(
                f"{self._model.name}: its tokenizer has no chat template, but model.prompt_format is chat; use text or auto"
            )
        chat = "chat" if has_template and self._format != "text" else "text"
        self.facts = EngineFacts("vllm", vllm.__version__, sequences, chat, "raw")

    def close(self) -> None:
        """End the engine; calls of `sample` that wait for it raise EngineError."""
        engine, self._engine = self._engine, None
        for finished in list(self._waiting):
            finished.put(EngineError("the engine was stopped"))
        if engine is not None:
            self._shut_down(engine)
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(timeout=10)

    def _alive(self) -> Any:
        """The engine, started again if it died."""
        with self._starting:
            if self._engine is None:
                raise EngineError("the engine was stopped")
            if self._engine.errored:
                log.warning("the engine died; starting it again")
                dead, self._engine = self._engine, None
                self._shut_down(dead)
                self._start()
            return self._engine

    def _shut_down(self, engine: Any) -> None:
        """End an engine, dead or alive, and every process of its."""
        if engine.output_handler is not None:  # it would log the end of the engine as an error
            self._loop.call_soon_threadsafe(engine.output_handler.cancel)
        with suppress(Exception):
            engine.shutdown()
        self._guard.end()

    # -- sampling ------------------------------------------------------------------------------------------------------

    def sample(self, groups: Sequence[Group]) -> Iterator[Drawn]:
        engine = self._alive()
        ready = [(group, self._tokens(group), _parameters(group)) for group in groups]
        finished: queue.SimpleQueue[Drawn | BaseException] = queue.SimpleQueue()

        async def draw(group: Group, tokens: list[int], parameters: "SamplingParams") -> None:
            try:
                await self._room.enter(group.n)
                try:
                    finished.put(await self._draw(engine, group, tokens, parameters))
                finally:
                    self._room.leave(group.n)
            except BaseException as error:
                finished.put(error)
                raise

        async def draw_all() -> None:
            async with asyncio.TaskGroup() as tasks:
                for item in ready:
                    tasks.create_task(draw(*item))

        self._waiting.add(finished)
        future = asyncio.run_coroutine_threadsafe(draw_all(), self._loop)
        try:
            for _ in ready:
                item = finished.get()
                if isinstance(item, BaseException):
                    raise EngineError(
                        f"the engine failed: {type(item).__name__}: {item}; what is finished is kept, run again to go on"
                    ) from item
                yield item
        finally:
            self._waiting.discard(finished)
            future.cancel()

    async def _draw(self, engine: Any, group: Group, tokens: list[int], parameters: "SamplingParams") -> Drawn:
        from vllm import TokensPrompt

        final = None
        request = f"{self._starts}-{next(self._requests)}"
        async for output in engine.generate(TokensPrompt(prompt_token_ids=tokens), parameters, request):
            final = output
        if final is None or len(final.outputs) != group.n:
            raise EngineError(f"asked for {group.n} completions, got {0 if final is None else len(final.outputs)}")
        completions = tuple(_completion(output) for output in final.outputs)
        return Drawn(group.number, completions, np.asarray(tokens, np.int32), self.seed)

    def _tokens(self, group: Group) -> list[int]:
        with self._tokenising:
            if self.facts.prompt_format == "chat":
                turns = [{"role": message.role, "content": message.content} for message in group.messages]
                text = self._tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
                tokens = self._tokenizer.encode(text, add_special_tokens=False)
            else:
                tokens = self._tokenizer.encode(plain_text(group.messages))
        if len(tokens) + group.parameters["max_tokens"] > self._context:
            raise SourceError(
                f"prompt {group.messages[-1].content[:60]!r}: {len(tokens)} tokens and sampling.max_tokens "
                f"{group.parameters['max_tokens']} do not fit the context of {self._context}; "
                "shorten the prompt, lower max_tokens or raise engine.max_model_len"
            )
        return list(tokens)


def _parameters(group: Group) -> "SamplingParams":
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    return SamplingParams(
        n=group.n,
        logprobs=0,  # the sampled token's own; enough for rewards and ratios
        flat_logprobs=True,
        output_kind=RequestOutputKind.FINAL_ONLY,
        **group.parameters,
    )


def _completion(output: "CompletionOutput") -> Completion:
    token_ids = np.asarray(output.token_ids, np.int32)
    logprobs = np.asarray(output.logprobs.logprobs, np.float32)  # FlatLogprobs, as asked for
    if len(logprobs) != len(token_ids):
        raise EngineError(f"vLLM gave {len(logprobs)} log-probabilities for {len(token_ids)} tokens")
    stop = None if output.stop_reason is None else str(output.stop_reason)
    return Completion(output.text, output.finish_reason, stop, token_ids, logprobs, float(logprobs.sum(dtype=np.float64)))


def _dtype(wanted: str) -> str:
    """`auto` is the model's own precision, but float32 on a CPU without AVX-512: bfloat16 is emulated there, 8 times slower."""
    from vllm.platforms import current_platform

    if wanted == "auto" and current_platform.is_cpu():
        flags = Path("/proc/cpuinfo")
        if flags.exists() and "avx2" in (text := flags.read_text()) and "avx512f" not in text:
            return "float32"
    return wanted


def _environment(spec: VllmEngine) -> None:
    """What vLLM reads from the environment, where the user has not set it already; it is read at vLLM's import."""
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    # Read by the engine's processes, which would write to the terminal.
    noise = "ignore:resource_tracker:UserWarning,ignore::FutureWarning:vllm.triton_utils.dispatcher"
    os.environ.setdefault("PYTHONWARNINGS", noise)
    os.environ.setdefault("TORCH_LOGS", "-all")
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("VLLM_CPU_NUM_OF_RESERVED_CPU", "0")  # the front end needs no core of its own on a small machine
    if spec.enforce_eager:  # vLLM still compiles one small function, which wants a C++ compiler and 20 s at the first sample
        os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")
    if spec.kv_cache_gib is not None:
        os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", str(max(1, round(spec.kv_cache_gib))))
