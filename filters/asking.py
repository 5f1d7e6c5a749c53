"""How a filter asks a model. Filters know nothing of engines: whoever runs them says how one is opened, and keeps it open.

thresher.judging.model_engines opens the engines that samplers use, so that a judge may be anything that can be sampled from.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ValidationInfo

from filters.base import FilterError
from schemas.recipe import Engine, ModelSpec, ReplayEngine, VllmEngine
from schemas.sample import Message

Messages = tuple[Message, ...]
Named = TypeVar("Named", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Chosen:
    """Which of the labels a model chose. `logprobs`: natural log-probability of each label as the first token, where the engine
    gives them, as raw as it has them. `label` is None where the model said something else, or where there is an `error`."""

    label: str | None
    logprobs: tuple[float, ...] | None = None
    error: str | None = None


def placed(named: Named, info: ValidationInfo) -> Named:
    """A model or an engine whose local path, if it has one, is relative to the recipe."""
    base = (info.context or {}).get("base")
    if base is None:
        return named
    if isinstance(named, ReplayEngine):
        return named.model_copy(update={"path": str(Path(base) / named.path)})
    if isinstance(named, ModelSpec) and (Path(base) / named.name).expanduser().is_dir():
        return named.model_copy(update={"name": str((Path(base) / named.name).expanduser().absolute())})
    return named


class Asker(Protocol):
    """A model that answers with one of several labels."""

    def choose(self, questions: Sequence[Messages], labels: tuple[str, ...]) -> list[Chosen]:
        """An answer to each, in order. Raises FilterError when the engine cannot go on."""
        ...


class Scorer(Protocol):
    """A reward or classification model."""

    labels: tuple[str, ...]
    """Names of the outputs, L of them, as its configuration has them."""

    def scores(self, texts: Sequence[Messages], *, activation: bool | None) -> list[NDArray[np.float64] | str]:
        """(L,) per text, or why there is none. `activation`: probabilities (True), what the model puts out (False), or the latter
        where L is 1 and the former elsewhere (None). Raises FilterError when the engine cannot go on."""
        ...


class Embedder(Protocol):
    """A model that embeds texts."""

    def embeddings(self, texts: Sequence[str]) -> list[NDArray[np.float64] | str]:
        """(D,) of length 1 per text, or why there is none. Raises FilterError when the engine cannot go on."""
        ...


@dataclass(frozen=True, slots=True)
class Openers:
    """How engines are opened. All may be called often: they give what is open already."""

    asker: Callable[[Engine, ModelSpec], Asker]
    scorer: Callable[[VllmEngine, ModelSpec], Scorer]
    embedder: Callable[[VllmEngine, ModelSpec], Embedder]


_openers: list[Openers] = []


def provide(openers: Openers) -> None:
    """Say how engines are opened in this process."""
    _openers[:] = [openers]


def openers() -> Openers:
    """What `provide` was given. Raises FilterError where it was not called."""
    if not _openers:
        raise FilterError("a filter asks a model, but nothing here opens one; run it through thresher, or call asking.provide")
    return _openers[0]
