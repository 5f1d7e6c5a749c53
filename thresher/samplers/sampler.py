"""What every sampler does, and the neutral parameters that make a draw an honest one."""

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from schemas.sample import Message
from schemas.sampling import Sampling
from thresher.estimators.calibration import Sums

NEUTRAL: dict[str, Any] = {
    "temperature": 1.0,
    "top_p": 1.0,
    "top_k": 0,
    "min_p": 0.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
    "repetition_penalty": 1.0,
}
"""Ancestral sampling. Every one of these is sent on every request: what is left out, an engine fills in from the model's own
generation_config, silently."""


@dataclass(frozen=True, slots=True)
class Group:
    """One prompt to be completed `n` times under `parameters`, as its samples `indices` (n of them). `number` comes back with the
    answer; the caller chooses it.

    `seeds` has one number in 0 .. 2^62-1 for each completion, made from its identity. An engine that takes seeds uses them and
    records on each completion the seed that was in force; another leaves them.

    With `labels` the answer is to be one of these texts: n is 1, the temperature 0, and the completion has `label_logprobs` where
    the engine gives them; elsewhere the engine is held to the labels by structured output.
    """

    number: int
    messages: tuple[Message, ...]
    n: int
    parameters: dict[str, Any]
    seeds: tuple[int, ...] = ()
    indices: tuple[int, ...] = ()
    labels: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Completion:
    """One completion. `token_ids` int32 and `logprobs` float32 are of one length T: each sampled token (the end-of-sequence token
    too, where the engine drew it) and its natural log-probability, of which `cumulative_logprob` is the sum in float64. `seed` is
    the seed this completion was drawn with, None where only the engine has one. `label_logprobs`: for each label of the group
    the natural log-probability that the first token is the label, -inf where that is below all that the engine lists."""

    text: str
    finish_reason: str | None
    stop_reason: str | None = None
    token_ids: NDArray[np.int32] | None = None
    logprobs: NDArray[np.float32] | None = None
    cumulative_logprob: float | None = None
    seed: int | None = None
    label_logprobs: tuple[float, ...] | None = None


@dataclass(frozen=True, slots=True)
class Drawn:
    """The finished completions of one group: `n` of them, or none and an `error` where the prompt cannot be sampled.

    `prompt_ids` are the tokens the engine was given, `engine_seed` the engine's own, `source` says which start of the engine or
    which server they come from. `calibration` holds the sums of thresher.estimators.calibration over all their tokens, where the engine was
    asked for its top-k log-probabilities.
    """

    number: int
    completions: tuple[Completion, ...]
    prompt_ids: NDArray[np.int32] | None = None
    engine_seed: int | None = None
    source: str = ""
    calibration: Sums | None = None
    error: str | None = None

    @property
    def tokens(self) -> int:
        """Tokens of all completions, as far as they are known."""
        known = (c.logprobs if c.token_ids is None else c.token_ids for c in self.completions)
        return sum(len(one) for one in known if one is not None)


@dataclass(frozen=True)
class EngineFacts:
    """What is recorded of an engine. `sequences` is how many completions it works on at once, `logprobs_kind` what its
    log-probabilities are of: `raw` is the model's own distribution, before temperature and truncation."""

    engine: str
    version: str
    sequences: int
    prompt_format: str
    logprobs_kind: str | None


class Stream(Protocol):
    """The requests of one shard, on an engine that it shares with others."""

    def submit(self, groups: Iterable[Group]) -> None:
        """Queue groups; returns at once. They enter the engine as there is room, those of a smaller `priority` first."""
        ...

    def take(self, timeout: float) -> list[Drawn]:
        """Everything finished since the last call, in no promised order; waits up to `timeout` seconds for the first, and may
        return nothing. Raises EngineError when the engine cannot go on, SourceError for a prompt that does not fit it."""
        ...


class Sampler(Protocol):
    """An engine that is warm and that several streams, each in a thread of its own, share: it stays busy while the last long
    completions of one shard finish. An engine that dies is started again and what was in flight is drawn again."""

    facts: EngineFacts

    def stream(self, priority: int = 0) -> AbstractContextManager[Stream]:
        """Open a stream; leaving it gives up what it still has in flight."""
        ...

    def close(self) -> None:
        """End the engine; streams that wait for it raise EngineError."""
        ...


def draw_parameters(sampling: Sampling, temperature: float) -> dict[str, Any]:
    """The parameters of a draw, every one explicit."""
    parameters = {name: getattr(sampling, name) for name in NEUTRAL}
    return {**parameters, "temperature": temperature, "max_tokens": sampling.max_tokens, "stop": list(sampling.stop)}


def anchor_parameters(sampling: Sampling) -> dict[str, Any]:
    """The same, greedy."""
    return {**NEUTRAL, "temperature": 0.0, "max_tokens": sampling.max_tokens, "stop": list(sampling.stop)}


def label_parameters(max_tokens: int = 1) -> dict[str, Any]:
    """The parameters of a group with labels: greedy."""
    return {**NEUTRAL, "temperature": 0.0, "max_tokens": max_tokens, "stop": []}


def plain_text(messages: Sequence[Message]) -> str:
    """Messages as a base model reads them: their contents, a blank line between."""
    return "\n\n".join(message.content for message in messages)
