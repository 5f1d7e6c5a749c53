"""The protocol of all samplers, and the parameters of an unbiased draw."""

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
"""Ancestral sampling. All of these are sent with every request: an engine silently takes a missing one from the model's
generation_config."""


@dataclass(frozen=True, slots=True)
class Group:
    """A prompt to complete `n` times under `parameters`, as its samples `indices` (n of them). The caller chooses `number`, and
    the answer repeats it.

    `seeds` has one number in 0 .. 2^62-1 per completion, derived from the sample's id. An engine that supports seeds uses them
    and records on each completion the seed that was in force; other engines ignore them.

    `tools` (JSON Schemas) and `template` (further arguments of the chat template) are JSON text, None if there are none.
    `keep_top` is the number of likeliest tokens that each completion brings along per position.

    With `labels`, the answer must be one of these texts: n is 1, the temperature is 0, and the completion has `label_logprobs` if
    the engine reports them. Otherwise structured output restricts the engine to the labels.
    """

    number: int
    messages: tuple[Message, ...]
    n: int
    parameters: dict[str, Any]
    seeds: tuple[int, ...] = ()
    indices: tuple[int, ...] = ()
    labels: tuple[str, ...] = ()
    tools: str | None = None
    template: str | None = None
    keep_top: int = 0


@dataclass(frozen=True, slots=True)
class Parts:
    """A completion that came apart: from a server, from messages, or by a parser of vLLM. `tool_calls` is the JSON text of a list
    of {name, arguments}. `answer` is None if the completion ended inside its reasoning. `parsed_by`: see
    schemas.sample.SAMPLES."""

    parsed_by: str
    reasoning: str | None = None
    answer: str | None = None
    tool_calls: str | None = None
    reasoning_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Completion:
    """One completion. `token_ids` (int32) and `logprobs` (float32) both have length T: each sampled token, including the
    end-of-sequence token if the engine drew it, and its natural log-probability. `cumulative_logprob` is their sum in float64.
    `seed` is the seed of this completion, None if only the engine has one. `label_logprobs` has the natural log-probability that
    the first token is the label, for each label of the group, -inf if the engine's list does not include it. `parts` is set if
    the completion came apart; otherwise it is taken apart by the model's marks. `top_ids` (int32) and `top_logprobs` (float32)
    have shape (T, k): the likeliest tokens at each position in order of rank, if they were asked for."""

    text: str
    finish_reason: str | None
    stop_reason: str | None = None
    token_ids: NDArray[np.int32] | None = None
    logprobs: NDArray[np.float32] | None = None
    cumulative_logprob: float | None = None
    seed: int | None = None
    label_logprobs: tuple[float, ...] | None = None
    parts: Parts | None = None
    top_ids: NDArray[np.int32] | None = None
    top_logprobs: NDArray[np.float32] | None = None

    def tokens_before(self, end: int, token_bytes: NDArray[np.int32] | None) -> int | None:
        """Return the number of tokens whose text is the first `end` bytes of the completion, None if its tokens are unknown. A
        token that goes on after `end` is not counted. `token_bytes` are the bytes of the text of each token (V,)."""
        if not end:
            return 0
        if self.token_ids is None or token_bytes is None:
            return None
        return int(np.searchsorted(np.cumsum(token_bytes[self.token_ids]), end, "right"))


@dataclass(frozen=True, slots=True)
class Drawn:
    """The finished completions of one group: `n` of them, or none and an `error` if the prompt could not be sampled.

    With `refused` the error lies in the prompt: another try ends the same way while engine, model and settings stay as they are.
    Otherwise another try may succeed.

    `prompt_ids` are the tokens that the engine read, `engine_seed` is the engine's own seed, and `source` names the engine start
    or the server. `calibration` has the sums of thresher.estimators.calibration over all tokens, if the engine reported its top-k
    log-probabilities; `masked` of them are left out, because the recipe lets the engine force them. `opened` tells whether the
    prompt ends inside thinking marks that the template opened; None if unknown.
    """

    number: int
    completions: tuple[Completion, ...]
    prompt_ids: NDArray[np.int32] | None = None
    engine_seed: int | None = None
    source: str = ""
    calibration: Sums | None = None
    error: str | None = None
    opened: bool | None = None
    masked: int = 0
    refused: bool = False

    @property
    def tokens(self) -> int:
        """Tokens of all completions, as far as they are known."""
        lists = (c.logprobs if c.token_ids is None else c.token_ids for c in self.completions)
        return sum(len(tokens) for tokens in lists if tokens is not None)


@dataclass(frozen=True)
class EngineFacts:
    """What the pool records about an engine. `sequences` is the number of completions it generates concurrently, `context` the
    most tokens of a prompt and its completion (0 if unknown). `logprobs_kind` is `raw` if log-probabilities are those of the
    model's own distribution, before temperature and truncation."""

    engine: str
    version: str
    sequences: int
    prompt_format: str
    logprobs_kind: str | None
    context: int = 0


class Stream(Protocol):
    """The requests of one shard, on an engine shared with other shards."""

    def submit(self, groups: Iterable[Group]) -> None:
        """Queue groups and return immediately. The engine takes them when it has room, those of a smaller `priority` first."""
        ...

    def take(self, timeout: float) -> list[Drawn]:
        """Return all groups finished since the last call, in any order.

        Waits up to `timeout` seconds for the first; the list may be empty. Raises EngineError if the engine cannot continue and
        SourceError for a prompt that does not fit it. Groups that finished before the error are returned first."""
        ...


class Sampler(Protocol):
    """A running engine, shared by several streams, each in its own thread: the engine stays busy while the last long completions
    of a shard finish. An engine that dies is restarted, and groups in flight are drawn again."""

    facts: EngineFacts
    token_bytes: NDArray[np.int32] | None
    """Bytes of the text of each token (V,), None if the tokenizer is not at hand."""

    def stream(self, priority: int = 0) -> AbstractContextManager[Stream]:
        """Open a stream; leaving it cancels its unfinished groups."""
        ...

    def close(self) -> None:
        """Stop the engine; streams that wait for it raise EngineError."""
        ...


def draw_parameters(sampling: Sampling, temperature: float) -> dict[str, Any]:
    """Return the parameters of a draw, all of them explicit; what is forced only if the recipe forces it."""
    parameters = {name: getattr(sampling, name) for name in NEUTRAL}
    ends = {"max_tokens": sampling.max_tokens, "stop": list(sampling.stop)}
    return {**parameters, "temperature": temperature, **ends, **sampling.declared}


def anchor_parameters(sampling: Sampling) -> dict[str, Any]:
    """Return the parameters of a greedy completion, all of them explicit; what is forced only if the recipe forces it."""
    ends = {"max_tokens": sampling.max_tokens, "stop": list(sampling.stop)}
    return {**NEUTRAL, "temperature": 0.0, **ends, **sampling.declared}


def label_parameters(max_tokens: int = 1) -> dict[str, Any]:
    """Return the parameters of a group with labels, which is greedy."""
    return {**NEUTRAL, "temperature": 0.0, "max_tokens": max_tokens, "stop": []}


def plain_text(messages: Sequence[Message]) -> str:
    """Join the contents of messages by blank lines, the prompt of a base model."""
    return "\n\n".join(message.content for message in messages)
