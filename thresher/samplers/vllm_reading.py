"""Runs vLLM over texts that exist: how hard each token was to predict from those before it. Nothing is sampled."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from itertools import count
from types import TracebackType

import numpy as np

from filters.tools import Reading
from schemas.engines import VllmEngine
from thresher.errors import EngineError
from thresher.inputs.models import Model
from thresher.samplers.token_watch import StalledError
from thresher.samplers.vllm_process import RESERVED_OPTIONS, Tokeniser, VllmProcess, check_options, in_words

TEXTS_AT_A_TIME = 256
"""Texts given to the engine together."""


class ReadingEngine:
    """A context manager that holds the engine. Threads may share it."""

    def __init__(self, spec: VllmEngine, model: Model) -> None:
        check_options(spec, (*RESERVED_OPTIONS, "runner", "convert"))
        self._spec, self._model = spec, model
        self._process, self._request_ids = VllmProcess(spec, model, thread_name="vllm reading"), count()
        self._read = 0

    def __enter__(self) -> "ReadingEngine":
        self._process.start_loop()
        try:
            self._process.load()
            self._context = self._process.start(logprobs_mode="raw_logprobs").model_config.max_model_len
            self._tokeniser = Tokeniser(self._model, "text", self._spec)
            self._before = self._tokeniser.completion("\n")
            self._continuing = self._tokeniser.continuing()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """End the engine and its processes."""
        self._process.close()

    def readings(self, texts: Sequence[str]) -> list[Reading | str]:
        """Read texts, each as if it came after a line break: a Reading, or why there is none. Raises EngineError if the engine
        has died."""
        if self._process.engine is None:
            raise EngineError("the engine was stopped")
        found: list[Reading | str] = []
        for start in range(0, len(texts), TEXTS_AT_A_TIME):
            try:
                found += self._process.run(self._read_all(texts[start : start + TEXTS_AT_A_TIME]))
            except StalledError:
                self.close()
                raise
            except Exception as error:
                raise EngineError(f"vLLM: {in_words(error)}") from error
        return found

    async def _read_all(self, texts: Sequence[str]) -> list[Reading | str]:
        """Raises StalledError if no text is finished for engine.silent_s: an engine whose step never returns raises nothing."""
        found, before = asyncio.gather(*(self._read_text(text) for text in texts)), -1
        while not (await asyncio.wait([found], timeout=self._spec.silent_s))[0]:
            if self._read == before:
                found.cancel()
                with suppress(asyncio.CancelledError):
                    await found
                raise StalledError(f"the engine finished none of {len(texts)} texts for {self._spec.silent_s:g} s")
            before = self._read
        return await found

    async def _read_text(self, text: str) -> Reading | str:
        from vllm import SamplingParams, TokensPrompt

        tokens, ends = self._tokeniser.placed(text)
        if len(self._before) + len(tokens) >= self._context:
            return f"{len(tokens)} tokens do not fit the model's context of {self._context}"
        if not tokens:
            return Reading.empty()
        final = None
        parameters = SamplingParams(max_tokens=1, temperature=0, prompt_logprobs=1, flat_logprobs=True, detokenize=False)
        prompt = TokensPrompt(prompt_token_ids=[*self._before, *tokens])
        async for output in self._process.engine.generate(prompt, parameters, str(next(self._request_ids))):
            final = output
        if final is None or final.prompt_logprobs is None:
            raise EngineError("asked vLLM for the log-probabilities of a prompt, got none")
        self._read += 1
        flat, skipped = final.prompt_logprobs, len(self._before)
        first = np.asarray(flat.start_indices[skipped:], np.int64)
        last = np.asarray(flat.end_indices[skipped:], np.int64) - 1
        logprobs, numbers = np.asarray(flat.logprobs, np.float32), np.asarray(flat.token_ids, np.int64)
        # A position has the token itself, then the likeliest one (which may be the same).
        return Reading(-logprobs[first], -logprobs[last], self._continuing[numbers[last]], ends)
