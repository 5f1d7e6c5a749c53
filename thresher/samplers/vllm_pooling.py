"""Runs vLLM as a reward, classification or embedding model: texts in, the numbers of its last layer out."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from itertools import count
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from schemas.engines import VllmEngine
from schemas.sample import Message
from thresher.errors import EngineError
from thresher.inputs.models import Model
from thresher.samplers.token_watch import StalledError
from thresher.samplers.vllm_process import RESERVED_OPTIONS, Tokeniser, VllmProcess, check_options, in_words

TEXTS_AT_A_TIME = 1024
"""Texts given to the engine together."""

Output = NDArray[np.float64] | str
"""The numbers of a text, or the reason why there are none."""


class PoolingEngine:
    """A context manager that holds the engine. Threads may share it."""

    labels: tuple[str, ...]
    """Names of the L outputs, from the model's configuration."""

    def __init__(self, spec: VllmEngine, model: Model, *, prompt_format: str) -> None:
        check_options(spec, (*RESERVED_OPTIONS, "runner", "convert"))
        self._spec, self._model, self._format = spec, model, prompt_format
        self._process, self._request_ids = VllmProcess(spec, model, thread_name="vllm pooling"), count()
        self._silent_s, self._pooled = spec.silent_s, 0

    def __enter__(self) -> "PoolingEngine":
        self._process.start_loop()
        try:
            self._start_engine()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _start_engine(self) -> None:
        self._process.load()
        config = self._process.start(runner="pooling").model_config
        self._context = config.max_model_len
        names = getattr(config.hf_config, "id2label", None) or {0: "LABEL_0"}
        self.labels = tuple(str(names[number]) for number in sorted(names, key=int))
        self._tokeniser = Tokeniser(self._model, self._format, self._spec)

    def close(self) -> None:
        """End the engine and its processes."""
        self._process.close()

    def scores(self, texts: Sequence[Sequence[Message]], *, activation: bool | None) -> list[Output]:
        """Score texts: (L,) each, or why there is no score. Raises EngineError if the engine has died.

        `activation` chooses probabilities (True), raw outputs (False), or raw outputs only if L is 1 (None).
        """
        use_activation = len(self.labels) > 1 if activation is None else activation
        return self._pool(
            "classify", use_activation, [self._tokeniser.prompt(self._tokeniser.text(text, to_continue=False)) for text in texts]
        )

    def embeddings(self, texts: Sequence[str]) -> list[Output]:
        """Embed texts: a vector of length 1 each, or why there is none. Raises EngineError if the engine has died."""
        return self._pool("embed", True, [self._tokeniser.whole_text(text) for text in texts])

    def _pool(self, task: str, use_activation: bool, texts: list[list[int]]) -> list[Output]:
        if self._process.engine is None:
            raise EngineError("the engine was stopped")
        outputs: list[Output] = []
        for start in range(0, len(texts), TEXTS_AT_A_TIME):
            try:
                outputs += self._process.run(self._pool_all(task, use_activation, texts[start : start + TEXTS_AT_A_TIME]))
            except StalledError:
                self.close()
                raise
            except Exception as error:
                raise EngineError(f"vLLM: {in_words(error)}") from error
        return outputs

    async def _pool_all(self, task: str, use_activation: bool, texts: list[list[int]]) -> list[Output]:
        """Raises StalledError if no text is finished for engine.silent_s: an engine whose step never returns raises nothing."""
        outputs, before = asyncio.gather(*(self._pool_text(task, use_activation, tokens) for tokens in texts)), -1
        while not (await asyncio.wait([outputs], timeout=self._silent_s))[0]:
            if self._pooled == before:
                outputs.cancel()
                with suppress(asyncio.CancelledError):
                    await outputs
                raise StalledError(f"the engine finished none of {len(texts)} texts for {self._silent_s:g} s")
            before = self._pooled
        return await outputs

    async def _pool_text(self, task: str, use_activation: bool, tokens: list[int]) -> Output:
        from vllm import PoolingParams, TokensPrompt

        if len(tokens) > self._context:
            return f"{len(tokens)} tokens do not fit the model's context of {self._context}"
        final, parameters = None, PoolingParams(task=task, use_activation=use_activation)
        prompt, request_id = TokensPrompt(prompt_token_ids=tokens), str(next(self._request_ids))
        async for output in self._process.engine.encode(prompt, parameters, request_id):
            final = output
        if final is None:
            raise EngineError("asked vLLM for a score, got none")
        self._pooled += 1
        return np.atleast_1d(np.asarray(final.outputs.data.float().cpu().numpy(), np.float64)).reshape(-1)
