"""Opens the models that filters ask: judges with any sampler, reward and embedding models with vLLM."""

import re
import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from filters.base import FilterError
from filters.reasoning import USUAL, Marking, take_apart
from filters.tools import Choice, Messages, Reading
from schemas.engines import Engine, HttpEngine, ModelSpec, ReplayEngine, VllmEngine
from schemas.sample import to_json
from schemas.sampling import Sampling
from thresher.errors import EngineError, ModelError, SourceError, ThresherError
from thresher.inputs import models
from thresher.inputs.thinking import marking_of
from thresher.samplers.open_sampler import open_sampler
from thresher.samplers.sampler import Completion, Drawn, Group, Sampler, label_parameters
from thresher.samplers.vllm_pooling import PoolingEngine
from thresher.samplers.vllm_reading import ReadingEngine


class SamplerAsker:
    """Any sampler as filters.tools.Asker. Calls of several threads run one after the other."""

    def __init__(self, sampler: Sampler, lock: threading.RLock, marking: Marking | None = USUAL) -> None:
        self._sampler, self._lock, self._marking = sampler, lock, marking

    def choose(
        self, questions: Sequence[Messages], labels: tuple[str, ...], *, thinking_tokens: int | None = None
    ) -> list[Choice]:
        """See filters.tools.Asker. A question that does not fit the model gets an error of its own; finding it costs about
        2 log2(n) further calls."""
        try:
            with self._lock:
                return self._all(questions, labels, thinking_tokens)
        except SourceError as error:
            if len(questions) == 1:
                return [Choice(None, error=str(error))]
            half = len(questions) // 2
            halves = (questions[:half], questions[half:])
            return [choice for part in halves for choice in self.choose(part, labels, thinking_tokens=thinking_tokens)]
        except EngineError as error:
            raise FilterError(f"the engine that a filter asks failed: {error}") from error

    def _all(self, questions: Sequence[Messages], labels: tuple[str, ...], thinking_tokens: int | None) -> list[Choice]:
        parameters, choices = label_parameters(thinking_tokens or 1), dict[int, Choice]()
        asked = labels if thinking_tokens is None else ()
        with self._sampler.stream() as stream:
            groups = [Group(number, turns, 1, parameters, (0,), (0,), asked) for number, turns in enumerate(questions)]
            stream.submit(groups)
            while len(choices) < len(questions):
                choices |= {drawn.number: self._choice(drawn, labels, thinks=not asked) for drawn in stream.take(1.0)}
        return [choices[number] for number in range(len(questions))]

    def _choice(self, drawn: Drawn, labels: tuple[str, ...], *, thinks: bool) -> Choice:
        if drawn.error is not None:
            return Choice(None, error=drawn.error)
        [completion] = drawn.completions
        if thinks:
            return Choice(_last_label(_answer(completion, self._marking, drawn.opened), labels))
        return Choice(_label(completion, labels), completion.label_logprobs)


def _answer(completion: Completion, marking: Marking | None, opened: bool | None) -> str:
    """What a judge wrote after its thinking; nothing if it was cut before."""
    if completion.parts is not None:
        return completion.parts.answer or ""
    return take_apart(pa.array([completion.text]), marking, [opened]).answer[0].as_py() or ""


def _last_label(answer: str, labels: tuple[str, ...]) -> str | None:
    """The last label that stands in an answer as a word of its own."""
    found = re.findall(rf"(?<!\w)(?:{'|'.join(map(re.escape, labels))})(?!\w)", answer)
    return found[-1] if found else None


def _label(completion: Completion, labels: tuple[str, ...]) -> str | None:
    """The chosen label: the likeliest one, the text itself, or the value of the JSON object in the text."""
    if completion.label_logprobs is not None:
        return labels[int(np.argmax(completion.label_logprobs))]
    text = completion.text.strip()
    text = text.removeprefix("{").removesuffix("}").partition(":")[2] if text.startswith("{") else text
    text = text.strip(" \t\n\"'.*")
    return text if text in labels else None


class PoolingScorer:
    """A pooling engine as filters.tools.Scorer and filters.tools.Embedder. Calls of several threads run one after the other."""

    def __init__(self, engine: Any, lock: threading.RLock) -> None:
        self._engine, self._lock, self.labels = engine, lock, engine.labels

    def scores(self, texts: Sequence[Messages], *, activation: bool | None) -> list[NDArray[np.float64] | str]:
        """See filters.tools.Scorer."""
        try:
            with self._lock:
                scores: list[NDArray[np.float64] | str] = self._engine.scores(texts, activation=activation)
        except EngineError as error:
            raise FilterError(f"the reward model failed: {error}") from error
        return scores

    def embeddings(self, texts: Sequence[str]) -> list[NDArray[np.float64] | str]:
        """See filters.tools.Embedder."""
        try:
            with self._lock:
                embeddings: list[NDArray[np.float64] | str] = self._engine.embeddings(texts)
        except EngineError as error:
            raise FilterError(f"the embedding model failed: {error}") from error
        return embeddings


class TextReader:
    """A reading engine as filters.tools.Reader. Calls of several threads run one after the other."""

    def __init__(self, engine: ReadingEngine, lock: threading.RLock) -> None:
        self._engine, self._lock = engine, lock

    def readings(self, texts: Sequence[str]) -> list[Reading | str]:
        """See filters.tools.Reader."""
        try:
            with self._lock:
                return self._engine.readings(texts)
        except EngineError as error:
            raise FilterError(f"the model that reads the texts failed: {error}") from error


class ModelEngines:
    """Opens models as filters.tools.Models, keeps them open, and closes them. Equal settings share one engine. Thread-safe."""

    def __init__(self) -> None:
        self._lock, self._stack = threading.Lock(), ExitStack()
        self._open: dict[str, tuple[Any, threading.RLock]] = {}

    def asker(self, engine: Engine, model: ModelSpec) -> SamplerAsker:
        """See filters.tools.Models."""
        opened = self._opened(to_json(["asker", *_settings(engine, model)]), lambda: _sampler(engine, model))
        return SamplerAsker(*opened, _marking(engine, model))

    def scorer(self, engine: VllmEngine, model: ModelSpec) -> PoolingScorer:
        """See filters.tools.Models."""
        return PoolingScorer(*self._opened(to_json(["scorer", *_settings(engine, model)]), lambda: _pooling(engine, model)))

    def embedder(self, engine: VllmEngine, model: ModelSpec) -> PoolingScorer:
        """See filters.tools.Models."""
        return self.scorer(engine, model)

    def reader(self, engine: VllmEngine, model: ModelSpec) -> TextReader:
        """See filters.tools.Models."""
        return TextReader(*self._opened(to_json(["reader", *_settings(engine, model)]), lambda: _reading(engine, model)))

    def close(self) -> None:
        """End every engine. The next request opens a new one."""
        with self._lock:
            self._open.clear()
            self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _opened(self, key: str, open_engine: Callable[[], AbstractContextManager[Any]]) -> tuple[Any, threading.RLock]:
        with self._lock:
            if key not in self._open:
                try:
                    self._open[key] = self._stack.enter_context(open_engine()), threading.RLock()
                except ThresherError as error:
                    raise FilterError(f"the model that a filter asks does not open: {error}") from error
            return self._open[key]


def _settings(engine: Engine, model: ModelSpec) -> list[Any]:
    return [engine.model_dump(mode="json"), model.model_dump()]


def _model(engine: Engine, spec: ModelSpec) -> models.Model:
    return models.of_spec(spec, served=isinstance(engine, HttpEngine | ReplayEngine), base=Path())


def _marking(engine: Engine, spec: ModelSpec) -> Marking | None:
    return marking_of(spec, _model(engine, spec).path)


def _sampler(engine: Engine, spec: ModelSpec) -> AbstractContextManager[Sampler]:
    model = _model(engine, spec)
    starts = count(1)
    # Nothing is sampled, so the seed of the engine does not matter.
    return open_sampler(
        engine,
        model,
        prompt_format=spec.prompt_format,
        marking=marking_of(spec, model.path),
        sampling=Sampling(seeds="engine"),
        base=Path(),
        start=lambda: (next(starts), 1),
    )


def _reading(engine: VllmEngine, spec: ModelSpec) -> AbstractContextManager[Any]:
    if spec.adapter is not None:
        raise ModelError(f"model.adapter {spec.adapter!r}: a model that reads texts takes none; merge it into {spec.name}")
    return ReadingEngine(engine, models.resolve(spec.name, spec.revision, base=Path()))


def _pooling(engine: VllmEngine, spec: ModelSpec) -> AbstractContextManager[Any]:
    if spec.adapter is not None:
        raise ModelError(f"model.adapter {spec.adapter!r}: reward and embedding models take none; merge it into {spec.name}")
    model = models.resolve(spec.name, spec.revision, base=Path())
    return PoolingEngine(engine, model, prompt_format=spec.prompt_format)
