"""What every sampler does, and the neutral parameters that make a draw an honest one."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from schemas.recipe import Sampling
from schemas.sample import Message

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
    """One prompt to be completed `n` times under `parameters`. `number` comes back with the answer; the caller chooses it."""

    number: int
    messages: tuple[Message, ...]
    n: int
    parameters: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Completion:
    """One completion. `token_ids` int32 and `logprobs` float32 are of one length T: each sampled token (the end-of-sequence token
    too, where the engine drew it) and its natural log-probability, of which `cumulative_logprob` is the sum in float64."""

    text: str
    finish_reason: str | None
    stop_reason: str | None = None
    token_ids: NDArray[np.int32] | None = None
    logprobs: NDArray[np.float32] | None = None
    cumulative_logprob: float | None = None


@dataclass(frozen=True, slots=True)
class Drawn:
    """The finished completions of one group. `prompt_ids` are the tokens the engine was given, `seed` the engine's."""

    number: int
    completions: tuple[Completion, ...]
    prompt_ids: NDArray[np.int32] | None = None
    seed: int | None = None


@dataclass(frozen=True)
class EngineFacts:
    """What is recorded of an engine. `sequences` is how many it decodes at once, `logprobs_kind` what its log-probabilities are
    of: `raw` is the model's own distribution, before temperature and truncation."""

    engine: str
    version: str
    sequences: int
    prompt_format: str
    logprobs_kind: str | None


class Sampler(Protocol):
    """An engine that is warm. `sample` may be called from several threads at once: their groups share the engine, so it stays
    busy while the last long completions of one shard finish."""

    facts: EngineFacts

    def sample(self, groups: Sequence[Group]) -> Iterator[Drawn]:
        """Yield each group's completions as it finishes, in no promised order. Raises EngineError when the engine dies; a
        later call starts it again."""
        ...

    def close(self) -> None:
        """End the engine; calls of `sample` under way raise EngineError."""
        ...


def draw_parameters(sampling: Sampling) -> dict[str, Any]:
    """The parameters of a draw, every one explicit."""
    parameters = {name: getattr(sampling, name) for name in NEUTRAL}
    return {**parameters, "max_tokens": sampling.max_tokens, "stop": list(sampling.stop)}


def anchor_parameters(sampling: Sampling) -> dict[str, Any]:
    """The same, greedy."""
    return {**NEUTRAL, "temperature": 0.0, "max_tokens": sampling.max_tokens, "stop": list(sampling.stop)}


def plain_text(messages: Sequence[Message]) -> str:
    """Messages as a base model reads them: their contents, a blank line between."""
    return "\n\n".join(message.content for message in messages)
