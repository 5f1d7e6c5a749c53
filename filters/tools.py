"""What a filter may use of the machine: worker processes, the sandbox and models.

`filters.build` passes a Tools to every `build(config, tools)`. The filter takes what it needs from it and keeps no state of its
own. Whoever makes the Tools closes it, which ends the worker processes. The owner of the models closes those.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray

from filters.base import FilterError
from filters.sandbox import Sandbox
from filters.supervise import Workers
from schemas.engines import Engine, ModelSpec, VllmEngine
from schemas.sample import Message

Messages = tuple[Message, ...]


@dataclass(frozen=True, slots=True)
class Choice:
    """The label a model chose.

    `label` is None if the model wrote something else, or if there is an `error`. `logprobs`: natural log-probability of each
    label as the first token, unnormalised, where the engine returns them.
    """

    label: str | None
    logprobs: tuple[float, ...] | None = None
    error: str | None = None


class Asker(Protocol):
    """A model that answers with one of several labels."""

    def choose(
        self, questions: Sequence[Messages], labels: tuple[str, ...], *, thinking_tokens: int | None = None
    ) -> list[Choice]:
        """Choose a label for each question, in order: at once, or after thinking for at most so many tokens. Raises FilterError
        if the engine fails."""
        ...


class Scorer(Protocol):
    """A reward or classification model. `labels` are the L names of its outputs, from its configuration."""

    labels: tuple[str, ...]

    def scores(self, texts: Sequence[Messages], *, activation: bool | None) -> list[NDArray[np.float64] | str]:
        """Return the scores (L,) of each text, or the reason why it has none.

        `activation` True: probabilities; False: raw outputs; None: raw outputs if L is 1, probabilities otherwise. Raises
        FilterError if the engine fails.
        """
        ...


class Embedder(Protocol):
    """A model that embeds texts."""

    def embeddings(self, texts: Sequence[str]) -> list[NDArray[np.float64] | str]:
        """Return the unit vector (D,) of each text, or the reason why it has none. Raises FilterError if the engine fails."""
        ...


@dataclass(frozen=True, slots=True)
class Reading:
    """How a language model read a text of T tokens, each from those before it."""

    surprisal: NDArray[np.float32]
    """(T,): nats, minus the log-probability of the token."""
    best: NDArray[np.float32]
    """(T,): nats, of the likeliest token at this place."""
    continues: NDArray[np.bool_]
    """(T,): whether the likeliest token continues a word: it starts with a small letter."""
    ends: NDArray[np.int32]
    """(T,): where the token ends in the text, in characters."""

    @classmethod
    def empty(cls) -> "Reading":
        """The reading of a text without tokens."""
        numbers = np.zeros(0, np.float32)
        return cls(numbers, numbers, np.zeros(0, bool), np.zeros(0, np.int32))


class Reader(Protocol):
    """A language model that reads texts."""

    def readings(self, texts: Sequence[str]) -> list[Reading | str]:
        """Return the reading of each text, or the reason why it has none. Raises FilterError if the engine fails."""
        ...


class Models(Protocol):
    """Opens models. Each method may be called often and from several threads; an open model is returned again."""

    def asker(self, engine: Engine, model: ModelSpec) -> Asker:
        """Open a model that chooses labels. Raises FilterError if it cannot be opened."""
        ...

    def scorer(self, engine: VllmEngine, model: ModelSpec) -> Scorer:
        """Open a reward or classification model. Raises FilterError if it cannot be opened."""
        ...

    def embedder(self, engine: VllmEngine, model: ModelSpec) -> Embedder:
        """Open an embedding model. Raises FilterError if it cannot be opened."""
        ...

    def reader(self, engine: VllmEngine, model: ModelSpec) -> Reader:
        """Open a language model that reads texts. Raises FilterError if it cannot be opened."""
        ...


@dataclass(frozen=True)
class Tools:
    """What a filter may use. A context manager: leaving it ends the processes of `workers` and `sandbox`.

    Relative paths among a filter's parameters are relative to `base` (None: the working directory).
    """

    base: Path | None = None
    home: Path | None = None
    """The folder whose files they may name, besides the working directory and the user's `roots` (filters.trust); null takes
    `base`. It differs for the recipe that a run holds, whose folder is whatever the run says."""
    workers: Workers = field(default_factory=Workers)
    """Makes pools of supervised worker processes."""
    sandbox: Sandbox = field(default_factory=Sandbox)
    """Runs untrusted programs."""
    models: Models | None = None
    """Opens models; None where no filter may ask one. Closing the Tools does not close it."""

    def opened_models(self) -> Models:
        """Return `models`. Raises FilterError if there are none."""
        if self.models is None:
            raise FilterError("the filter asks a model, but was built without `models`; pass filters.build a Tools that has them")
        return self.models

    def close(self) -> None:
        """End all worker processes and wait for them."""
        self.workers.close()
        self.sandbox.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()
