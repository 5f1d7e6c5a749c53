"""What a server sends back: its errors, and whole answers.

An answer is whole or none: whatever is missing, of another type or contradictory makes it a failed attempt, with the server's own
words where it has some.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from math import isfinite
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from schemas.finish_reasons import ABORT, CONTENT_FILTER, pool_reason
from thresher.estimators.calibration import Sums
from thresher.samplers.http.logprobs import (
    TokenLogprobs,
    TopTokens,
    calibrate,
    drawn_logprobs,
    label_logprobs,
    read_logprobs,
    shown_text,
    token_numbers,
    with_top,
)
from thresher.samplers.http.parts import read_message, read_text
from thresher.samplers.sampler import Completion, Parts

TOKEN_BYTES = 1024
"""Bytes of text that no token exceeds. Longer texts are not what was asked for."""
MOST_TOKENS = 2**31 - 1
"""The largest count of tokens that the pool can hold."""
WORDS = 500
"""Characters of an error message that are kept."""


class ServerError(Exception):
    """A server sends an error with the status of an answer."""


class NoLogprobsError(ValueError):
    """An answer lacks the log-probabilities that were asked for."""


class BlockedError(Exception):
    """A server sends no choices, and says that a policy blocks the prompt."""


@dataclass(frozen=True, slots=True)
class Response:
    """An HTTP response: status, Retry-After header, body, Location header."""

    status: int
    retry_after: str
    content: bytes
    location: str = ""

    @property
    def text(self) -> str:
        return self.content.decode("utf-8", "replace")

    def json(self) -> Any:
        return orjson.loads(self.content)

    @property
    def message(self) -> str:
        """The server's error message, at most 500 characters."""
        try:
            return error_words(self.json())
        except (ValueError, RecursionError):
            return self.text[:WORDS]

    @property
    def param(self) -> str | None:
        """The name of the field that the error is about, if the server says it as OpenAI does."""
        try:
            error = self.json()["error"]["param"]
        except (ValueError, KeyError, TypeError, IndexError):
            return None
        return error if isinstance(error, str) else None

    @property
    def wait_s(self) -> float:
        """Seconds to wait as the server asks, 0 if it does not ask."""
        try:
            seconds = float(self.retry_after)
        except ValueError:
            try:
                seconds = (parsedate_to_datetime(self.retry_after) - datetime.now(UTC)).total_seconds()
            except (ValueError, TypeError, OverflowError):
                return 0.0
        return max(0.0, seconds) if isfinite(seconds) else 0.0


def error_words(body: Any) -> str:
    """Return the message in the body of an error, at most 500 characters, wherever a server puts it."""
    body = body[0] if isinstance(body, list) and len(body) == 1 and isinstance(body[0], dict) else body  # Gemini
    try:
        return _words(body)[:WORDS]
    except RecursionError:
        return "an error of too many levels"


def _words(body: Any) -> str:
    message, further = body, ""
    for _ in range(3):  # an error in an error: {"error": {"message": {"detail": ...}}}
        if not isinstance(message, dict):
            break
        raw = message.get("metadata")
        further = str(raw["raw"]) if isinstance(raw, dict) and raw.get("raw") else further  # the words of a provider behind it
        inner = [message[name] for name in ("error", "detail", "message") if message.get(name)]
        if not inner:
            break
        message = inner[0]
    text = message if isinstance(message, str) else json.dumps(message)
    return f"{text}: {further}" if further else text


@dataclass(frozen=True)
class Answer:
    """A complete answer. `tokens` counts all completions; `calibration` has the sums of their tokens. `masked` of these are left
    out, because the server may have been made to draw them."""

    completions: tuple[Completion, ...]
    prompt_ids: NDArray[np.int32] | None
    tokens: int
    calibration: Sums | None
    masked: int = 0


@dataclass(frozen=True)
class Asked:
    """What a request asked for: at most `n` choices of at most `max_tokens` tokens, and `top_logprobs` likeliest tokens for the
    calibration. `seed` is the seed of choice 0. Only the first `free` tokens of each choice are calibrated, if not None. `keep`
    likeliest tokens are kept. An answer lacks something without the log-probabilities if they are `sure`. With `labels` their
    log-probabilities are read."""

    n: int
    top_logprobs: int = 0
    seed: int | None = None
    keep: int = 0
    free: int | None = None
    max_tokens: int | None = None
    sure: bool = False
    labels: tuple[str, ...] = ()


def read_answer(content: bytes, asked: Asked) -> Answer:
    """Read the choices of an answer that a request asked for, and the calibration sums of their tokens.

    Raises ServerError for an error, BlockedError for a prompt that a policy blocks, and ValueError, KeyError, TypeError,
    IndexError, AttributeError or ArithmeticError for anything else that is no whole answer.
    """
    body = orjson.loads(content)
    choices = _choices(body)[: asked.n]
    tokens: list[Any] = []
    top: list[TopTokens] = []
    completions, length, masked = [], 0, 0
    for choice in choices:
        completion, drawn = _read_choice(choice, asked)
        if asked.keep:
            completion = with_top(completion, drawn, asked.keep)
        completions.append(completion)
        length += len(drawn.tokens if completion.token_ids is None else completion.token_ids)
        if asked.top_logprobs:
            tokens += drawn.tokens[: asked.free]
            top += drawn.top[: asked.free]
            masked += len(drawn.tokens) - len(drawn.tokens[: asked.free])
    answers = [
        one for one in completions if one.finish_reason != CONTENT_FILTER and (one.parts is None or not one.parts.tool_calls)
    ]
    if len({completion.logprobs is None for completion in answers}) > 1:
        raise ValueError("some of its choices have log-probabilities and others have none")
    if len(completions) == 1:
        completions = [_with_reasoning_tokens(completions[0], body.get("usage"))]
    prompt = body.get("prompt_token_ids") or choices[0].get("prompt_token_ids")
    complete = len(top) == len(tokens) and all(completion.logprobs is not None for completion in completions)
    calibration = calibrate(tokens, top, asked.top_logprobs) if asked.top_logprobs and complete else None
    prompt_ids = None if prompt is None else token_numbers(prompt, "prompt_token_ids")
    unlisted = 0 if calibration is None else calibration[1]
    return Answer(tuple(completions), prompt_ids, length, calibration and calibration[0], masked + unlisted)


def _choices(body: Any) -> list[dict[str, Any]]:
    """The choices of an answer in the order of their indices, which count from 0."""
    if isinstance(body, dict) and body.get("error"):
        raise ServerError(error_words(body))
    choices = body.get("choices") if isinstance(body, dict) else None
    if isinstance(body, dict) and not choices and (blocked := _block_reason(body)):
        raise BlockedError(f"its policy blocks it: {blocked}"[:WORDS])
    if not isinstance(choices, list) or not choices or not all(isinstance(choice, dict) for choice in choices):
        raise ValueError(f"wanted an object with a list of choices, found {json.dumps(body)[:120]}")
    for choice in choices:
        if choice.get("error"):
            raise ServerError(error_words(choice))
    indices = [choice.get("index") for choice in choices]
    if set(map(type, indices)) != {int} or sorted(indices) != list(range(len(choices))):
        raise ValueError(f"the indices of its {len(choices)} choices are {str(indices)[:80]}")
    return sorted(choices, key=lambda choice: choice["index"])


def _block_reason(body: Mapping[str, Any]) -> str | None:
    """Why a policy blocks a prompt, if an answer without choices says so (Gemini)."""
    feedback = body.get("prompt_feedback") or body.get("promptFeedback")
    if not isinstance(feedback, dict):
        return None
    reason = feedback.get("block_reason") or feedback.get("blockReason")
    return None if not reason else f"{reason} {feedback.get('blockReasonMessage') or ''}".strip()


def finish_reason(choice: Mapping[str, Any]) -> str:
    """Return how a choice ended, in the pool's words. Raises ValueError if it did not, or in an unknown way."""
    said = choice.get("finish_reason")
    reason = pool_reason(said) if isinstance(said, str) else None
    if reason is None or reason == ABORT:
        raise ValueError(f"finish_reason is {said if isinstance(said, str) else json.dumps(said)}"[:120])
    return reason


def _with_reasoning_tokens(completion: Completion, usage: Any) -> Completion:
    """Add the number of reasoning tokens, if the server reports it; it reports one for all choices."""
    count = ((usage or {}).get("completion_tokens_details") or {}).get("reasoning_tokens")
    if completion.parts is None or count is None:
        return completion
    if type(count) is not int or not 0 <= count <= MOST_TOKENS:
        raise ValueError(f"reasoning_tokens is {str(count)[:80]}")
    return replace(completion, parts=replace(completion.parts, reasoning_tokens=count))


def _read_choice(choice: dict[str, Any], asked: Asked) -> tuple[Completion, TokenLogprobs]:
    reason = finish_reason(choice)
    if reason == CONTENT_FILTER:
        return _withheld(choice), TokenLogprobs([], None, [])
    fields = choice.get("logprobs") or {}
    ids = None if choice.get("token_ids") is None else token_numbers(choice["token_ids"], "token_ids")
    blank = ids is not None and len(ids) <= 1  # the model ended at once
    text, parts = (
        read_message(choice["message"], reason, blank=blank) if "message" in choice else (read_text(choice["text"]), None)
    )
    if asked.max_tokens is not None and len(text) > TOKEN_BYTES * (asked.max_tokens + 1):
        raise ValueError(f"a text of {len(text)} characters, longer than {asked.max_tokens} tokens can be")
    if ids is not None and not (asked.top_logprobs or asked.keep):  # most answers: names of tokens are not needed
        drawn = TokenLogprobs(choice["token_ids"], drawn_logprobs(fields), [])
    else:
        drawn = read_logprobs(fields)
    if ids is None and drawn.tokens and all(isinstance(token, int) for token in drawn.tokens):
        ids = token_numbers(drawn.tokens, "tokens")
    logprobs = drawn.logprobs
    if logprobs is None and asked.sure:
        raise NoLogprobsError("no log-probabilities, which were asked for")
    if logprobs is not None:
        _check_complete(text, parts, ids, drawn)
    stored = None if logprobs is None else logprobs.astype(np.float32)
    completion = Completion(
        text,
        reason,
        None if choice.get("stop_reason") is None else str(choice["stop_reason"]),
        ids,
        stored,
        None if stored is None else float(stored.sum(dtype=np.float64)),
        None if asked.seed is None else asked.seed + choice["index"],
        label_logprobs(fields, asked.labels) if asked.labels else None,
        parts,
    )
    return completion, drawn


def _check_complete(text: str, parts: Parts | None, ids: NDArray[np.int32] | None, drawn: TokenLogprobs) -> None:
    """Raise ValueError if there are fewer or more log-probabilities than tokens."""
    count = len(drawn.tokens)
    if drawn.logprobs is None or len(drawn.logprobs) != (count if ids is None else len(ids)):
        found = "no" if drawn.logprobs is None else len(drawn.logprobs)
        raise ValueError(f"{found} log-probabilities of {count if ids is None else len(ids)} tokens")
    if drawn.top and len(drawn.top) != count:
        raise ValueError(f"top log-probabilities of {len(drawn.top)} of {count} tokens")
    if ids is None and parts is None and (shown := shown_text(drawn)) is not None and shown != text and text.startswith(shown):
        raise ValueError(f"log-probabilities of {count} tokens, and {len(text) - len(shown)} characters without")


def _withheld(choice: Mapping[str, Any]) -> Completion:
    """A completion that the provider's policy withholds: what text there is, which is no answer, and the provider's words as
    `stop_reason`."""
    said_in = choice.get("message")
    message: dict[str, Any] = said_in if isinstance(said_in, dict) else {}
    text = choice.get("text") if isinstance(choice.get("text"), str) else message.get("content")
    words = [choice["finish_reason"], choice.get("native_finish_reason"), message.get("refusal")]
    said = ": ".join(dict.fromkeys(word for word in words if isinstance(word, str) and word))
    parts = Parts("server", answer=None)
    return Completion(text if isinstance(text, str) else "", CONTENT_FILTER, said[:WORDS], parts=parts)
