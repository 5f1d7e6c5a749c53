"""vLLM as a reward, classification or embedding model: texts in, the numbers of its last layer out."""

import asyncio
import threading
import warnings
from collections.abc import Sequence
from contextlib import suppress
from itertools import count
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from schemas.engines import VllmEngine
from schemas.sample import Message
from thresher.errors import EngineError
from thresher.inputs.models import Model
from thresher.samplers.orphans import Guard
from thresher.samplers.sampler import plain_text
from thresher.samplers.vllm_offline import OURS, dtype_for, set_environment

AT_ONCE = 1024
"""Texts handed to the engine at once."""
_OURS = {*OURS, "runner", "convert"}


class PoolingEngine:
    """A context manager that holds the engine; several threads may ask it at once."""

    labels: tuple[str, ...]

    def __init__(self, spec: VllmEngine, model: Model, *, prompt_format: str) -> None:
        taken = sorted(set(spec.options) & _OURS)
        if taken:
            raise EngineError(f"engine.options.{taken[0]}: thresher sets this itself; take it out of the recipe")
        self._spec, self._model, self._format = spec, model, prompt_format
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="vllm pooling", daemon=True)
        self._guard, self._requests, self._tokenising = Guard(), count(), threading.Lock()
        self._engine: Any = None

    def __enter__(self) -> "PoolingEngine":
        self._thread.start()
        try:
            self._start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _start(self) -> None:
        set_environment(self._spec)
        try:
            warnings.filterwarnings("ignore", category=FutureWarning, module="vllm")
            from transformers import AutoTokenizer
            from vllm.engine.arg_utils import AsyncEngineArgs
            from vllm.v1.engine.async_llm import AsyncLLM
        except ImportError as error:
            raise EngineError(f"vLLM cannot be imported ({error}); install thresher[cpu] or, on a GPU, thresher[gpu]") from error
        names = ("max_model_len", "max_num_seqs", "gpu_memory_utilization")
        options = {name: value for name in names if (value := getattr(self._spec, name)) is not None}

        async def build() -> Any:
            return AsyncLLM.from_engine_args(arguments)

        with self._guard.watching():
            try:
                arguments = AsyncEngineArgs(
                    model=self._model.path,
                    runner="pooling",
                    dtype=dtype_for(self._spec.dtype),
                    tensor_parallel_size=self._spec.tensor_parallel_size,
                    enforce_eager=self._spec.enforce_eager,
                    disable_log_stats=True,
                    use_tqdm_on_load=False,
                    **options,
                    **self._spec.options,
                )
                config = arguments.create_engine_config().model_config
                self._engine = asyncio.run_coroutine_threadsafe(build(), self._loop).result()
            except Exception as error:
                raise EngineError(
                    f"vLLM would not run {self._model.path} as a pooling model: {type(error).__name__}: {error}"
                ) from error
        self._context = config.max_model_len
        named = getattr(config.hf_config, "id2label", None) or {0: "LABEL_0"}
        self.labels = tuple(str(named[number]) for number in sorted(named, key=int))
        self._tokenizer = AutoTokenizer.from_pretrained(self._model.path)
        has_template = getattr(self._tokenizer, "chat_template", None) is not None
        self._chat = has_template and self._format != "text"
        if self._format == "chat" and not has_template:
            raise EngineError(f"{self._model.name}: its tokenizer has no chat template; set model.prompt_format to text or auto")

    def close(self) -> None:
        """End the engine and its processes."""
        engine, self._engine = self._engine, None
        if engine is not None:
            if engine.output_handler is not None:
                self._loop.call_soon_threadsafe(engine.output_handler.cancel)
            with suppress(Exception):
                engine.shutdown()
        self._guard.end()
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(timeout=10)
        if not self._loop.is_running():
            self._loop.close()

    def scores(self, texts: Sequence[Sequence[Message]], *, activation: bool | None) -> list[NDArray[np.float64] | str]:
        """See filters.tools.Scorer. Raises EngineError when the engine has died."""
        use = len(self.labels) > 1 if activation is None else activation
        return self._pooled("classify", use, [self._tokens(text) for text in texts])

    def embeddings(self, texts: Sequence[str]) -> list[NDArray[np.float64] | str]:
        """See filters.tools.Embedder. Raises EngineError when the engine has died."""
        with self._tokenising:
            tokens = [list(self._tokenizer.encode(text, truncation=False, verbose=False)) for text in texts]
        return self._pooled("embed", True, tokens)

    def _pooled(self, task: str, activation: bool, texts: list[list[int]]) -> list[NDArray[np.float64] | str]:
        if self._engine is None:
            raise EngineError("the engine was stopped")
        found: list[NDArray[np.float64] | str] = []
        for at in range(0, len(texts), AT_ONCE):
            try:
                some = self._all(task, activation, texts[at : at + AT_ONCE])
                found += asyncio.run_coroutine_threadsafe(some, self._loop).result()
            except Exception as error:
                raise EngineError(f"vLLM: {type(error).__name__}: {error}") from error
        return found

    async def _all(self, task: str, activation: bool, texts: list[list[int]]) -> list[NDArray[np.float64] | str]:
        return await asyncio.gather(*(self._one(task, activation, tokens) for tokens in texts))

    async def _one(self, task: str, activation: bool, tokens: list[int]) -> NDArray[np.float64] | str:
        from vllm import PoolingParams, TokensPrompt

        if len(tokens) > self._context:
            return f"{len(tokens)} tokens do not fit the model's context of {self._context}"
        final, parameters = None, PoolingParams(task=task, use_activation=activation)
        async for output in self._engine.encode(TokensPrompt(prompt_token_ids=tokens), parameters, str(next(self._requests))):
            final = output
        if final is None:
            raise EngineError("asked for a score, got nothing")
        return np.atleast_1d(np.asarray(final.outputs.data.float().cpu().numpy(), np.float64)).reshape(-1)

    def _tokens(self, messages: Sequence[Message]) -> list[int]:
        with self._tokenising:
            if not self._chat:
                return list(self._tokenizer.encode(plain_text(messages)))
            turns = [{"role": message.role, "content": message.content} for message in messages]
            text = self._tokenizer.apply_chat_template(turns, tokenize=False)
            return list(self._tokenizer.encode(text, add_special_tokens=False))
