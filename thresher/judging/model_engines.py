"""Opens the models that filters ask: judges through any sampler, reward models through vLLM. An engine stays open until its
process ends, and all filters of that process that name the same one share it."""

import atexit
import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from itertools import count
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from filters.asking import Chosen, Messages, Openers, provide
from filters.base import FilterError
from schemas.recipe import Engine, HttpEngine, ModelSpec, ReplayEngine, Sampling, VllmEngine
from schemas.sample import to_json
from thresher.errors import EngineError, SourceError, ThresherError
from thresher.inputs import models
from thresher.samplers import open_sampler
from thresher.samplers.sampler import Completion, Drawn, Group, Sampler, label_parameters

T = TypeVar("T")


class SamplerAsker:
    """Any sampler as filters.asking.Asker."""

    def __init__(self, sampler: Sampler) -> None:
        self._sampler = sampler

    def choose(self, questions: Sequence[Messages], labels: tuple[str, ...]) -> list[Chosen]:
        """See filters.asking.Asker. A question that does not fit the model has an error of its own; finding it costs about
        2 log2(n) further calls."""
        try:
            return self._all(questions, labels)
        except SourceError as error:
            if len(questions) == 1:
                return [Chosen(None, error=str(error))]
            half = len(questions) // 2
            return self.choose(questions[:half], labels) + self.choose(questions[half:], labels)
        except EngineError as error:
            raise FilterError(f"the engine that a filter asks cannot go on: {error}") from error

    def _all(self, questions: Sequence[Messages], labels: tuple[str, ...]) -> list[Chosen]:
        parameters, found = label_parameters(), dict[int, Chosen]()
        with self._sampler.stream() as stream:
            stream.submit([Group(at, one, 1, parameters, (0,), (0,), labels) for at, one in enumerate(questions)])
            while len(found) < len(questions):
                found |= {drawn.number: _chosen(drawn, labels) for drawn in stream.take(1.0)}
        return [found[at] for at in range(len(questions))]


def _chosen(drawn: Drawn, labels: tuple[str, ...]) -> Chosen:
    if drawn.error is not None:
        return Chosen(None, error=drawn.error)
    [completion] = drawn.completions
    return Chosen(_label(completion, labels), completion.label_logprobs)


def _label(completion: Completion, labels: tuple[str, ...]) -> str | None:
    """The label that was said: the likeliest, or what the text is, or what stands in the JSON of the text."""
    if completion.label_logprobs is not None:
        return labels[int(np.argmax(completion.label_logprobs))]
    text = completion.text.strip()
    said = text.removeprefix("{").removesuffix("}").partition(":")[2] if text.startswith("{") else text
    said = said.strip(" \t\n\"'.*")
    return said if said in labels else None


class _Scorer:
    """A pooling engine as filters.asking.Scorer and filters.asking.Embedder."""

    def __init__(self, engine: Any) -> None:
        self._engine, self.labels = engine, engine.labels

    def scores(self, texts: Sequence[Messages], *, activation: bool | None) -> list[NDArray[np.float64] | str]:
        try:
            found: list[NDArray[np.float64] | str] = self._engine.scores(texts, activation=activation)
        except EngineError as error:
            raise FilterError(f"the reward model cannot go on: {error}") from error
        return found

    def embeddings(self, texts: Sequence[str]) -> list[NDArray[np.float64] | str]:
        try:
            found: list[NDArray[np.float64] | str] = self._engine.embeddings(texts)
        except EngineError as error:
            raise FilterError(f"the embedding model cannot go on: {error}") from error
        return found


class _Opened:
    """What is open in this process, by what was asked for."""

    def __init__(self) -> None:
        self._lock, self._stack = threading.Lock(), ExitStack()
        self._held: dict[str, Any] = {}

    def get(self, key: str, opened: Callable[[], AbstractContextManager[T]]) -> T:
        with self._lock:
            if key not in self._held:
                try:
                    self._held[key] = self._stack.enter_context(opened())
                except ThresherError as error:
                    raise FilterError(f"the model that a filter asks does not open: {error}") from error
            held: T = self._held[key]
            return held

    def close(self) -> None:
        with self._lock:
            self._held.clear()
            self._stack.close()


_opened = _Opened()


def close() -> None:
    """End every engine that filters have opened in this process."""
    _opened.close()


def _asker(engine: Engine, spec: ModelSpec) -> SamplerAsker:
    def opened() -> AbstractContextManager[Sampler]:
        if isinstance(engine, HttpEngine | ReplayEngine):
            model = models.Model(spec.name, "", spec.revision, None, None, None)
        else:
            model = models.resolve(spec.name, spec.revision, base=Path())
        starts = count(1)
        # Nothing is sampled: the seed of an engine that only says which label is likelier is of no account.
        return open_sampler(
            engine,
            model,
            prompt_format=spec.prompt_format,
            sampling=Sampling(seeds="engine"),
            base=Path(),
            start=lambda: (next(starts), 1),
        )

    return SamplerAsker(_opened.get(to_json(["asker", engine.model_dump(mode="json"), spec.model_dump()]), opened))


def _scorer(engine: VllmEngine, spec: ModelSpec) -> _Scorer:
    def opened() -> AbstractContextManager[Any]:
        from thresher.samplers.vllm_pooling import PoolingEngine

        model = models.resolve(spec.name, spec.revision, base=Path())
        return PoolingEngine(engine, model, prompt_format=spec.prompt_format)

    return _Scorer(_opened.get(to_json(["scorer", engine.model_dump(mode="json"), spec.model_dump()]), opened))


def ready() -> None:
    """Let filters ask models in this process."""
    provide(Openers(_asker, _scorer, _scorer))


atexit.register(close)
