"""Reads what an OpenAI-compatible server answers: completions, tokens and log-probabilities of either API, errors, waits."""

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from thresher.estimators.calibration import Sums, sums
from thresher.samplers.sampler import Completion


@dataclass(frozen=True, slots=True)
class Response:
    """What a server answered: the status, its Retry-After header, and the body."""

    status: int
    retry_after: str
    content: bytes

    @property
    def text(self) -> str:
        return self.content.decode("utf-8", "replace")

    def json(self) -> Any:
        return orjson.loads(self.content)

    @property
    def message(self) -> str:
        """What a server says of an error, in its own words, 500 characters at most."""
        try:
            body = self.json()
            found = body.get("error", body.get("detail", body.get("message", body)))
            found = found.get("message", found) if isinstance(found, dict) else found
        except (ValueError, AttributeError):
            found = self.text
        return (found if isinstance(found, str) else json.dumps(found))[:500]

    @property
    def wait_s(self) -> float:
        """Seconds that a server asks to be left alone, 0 where it does not say."""
        try:
            return max(0.0, float(self.retry_after))
        except ValueError:
            try:
                return max(0.0, (parsedate_to_datetime(self.retry_after) - datetime.now(UTC)).total_seconds())
            except (ValueError, TypeError):
                return 0.0


@dataclass(frozen=True)
class Answer:
    """What a whole answer holds; `found` are the calibration sums of its tokens."""

    completions: tuple[Completion, ...]
    prompt_ids: NDArray[np.int32] | None
    tokens: int
    found: Sums | None


def read_answer(content: bytes, n: int, listed: int, seed: int | None) -> Answer:
    """The first `n` choices of an answer, and the calibration sums of their tokens where `listed` likeliest were asked for.
    Raises ValueError, KeyError, TypeError, IndexError or AttributeError where it is not whole."""
    body = orjson.loads(content)
    choices = sorted(body["choices"], key=lambda choice: choice["index"])[:n]
    if not choices:
        raise ValueError("no choices")
    drawn: list[Any] = []
    tops: list[list[tuple[Any, float]]] = []
    completions, length = [], 0
    for choice in choices:
        text = choice["message"]["content"] if "message" in choice else choice["text"]
        if choice["finish_reason"] in (None, "abort", "error"):
            raise ValueError(f"finish_reason is {choice['finish_reason']}")
        given, ids = choice.get("logprobs") or {}, choice.get("token_ids")
        if ids is not None and not listed:  # most answers: what the tokens are called does not matter
            tokens, own = ids, _own(given)
            top: list[list[tuple[Any, float]]] = []
        else:
            tokens, own, top = logprobs_of(given)
        if ids is None and tokens and all(isinstance(token, int) for token in tokens):
            ids = tokens
        if own is not None and (not np.isfinite(own).all() or (ids is not None and len(ids) != len(own))):
            raise ValueError(
                f"log-probabilities {own[:3]} ... of {len(own)} tokens, {len(tokens if ids is None else ids)} tokens"
            )
        length += len(tokens if ids is None else ids)
        if listed:
            drawn += tokens
            tops += top
        completions.append(
            Completion(
                text or "",
                choice["finish_reason"],
                None if choice.get("stop_reason") is None else str(choice["stop_reason"]),
                None if ids is None else np.asarray(ids, np.int32),
                None if own is None else own.astype(np.float32),
                None if own is None else float(own.astype(np.float32).sum(dtype=np.float64)),
                None if seed is None else seed + choice["index"],
            )
        )
    prompt = body.get("prompt_token_ids") or choices[0].get("prompt_token_ids")
    whole = len(tops) == len(drawn) and all(one.logprobs is not None for one in completions)
    found = calibrate(drawn, tops, listed) if listed and whole else None
    return Answer(tuple(completions), None if prompt is None else np.asarray(prompt, np.int32), length, found)


def _own(given: dict[str, Any]) -> NDArray[np.float64] | None:
    """The log-probabilities of the drawn tokens (T,); of either API."""
    if given.get("content") is not None:
        return np.array([entry["logprob"] for entry in given["content"]], np.float64)
    return None if given.get("tokens") is None else np.array(given["token_logprobs"], np.float64)


def logprobs_of(given: dict[str, Any]) -> tuple[list[Any], NDArray[np.float64] | None, list[list[tuple[Any, float]]]]:
    """Identities of the drawn tokens, their log-probabilities (T,), and the likeliest at each position; of either API. A token is
    its id where the server names it, else its text and bytes."""

    def identity(token: str, raw: list[int] | None = None) -> Any:
        number = token.removeprefix("token_id:")
        return int(number) if number != token and number.isdigit() else (token, None if raw is None else tuple(raw))

    if given.get("content") is not None:
        entries = given["content"]
        top = [[(identity(t["token"], t.get("bytes")), t["logprob"]) for t in e.get("top_logprobs") or ()] for e in entries]
        drawn = [identity(entry["token"], entry.get("bytes")) for entry in entries]
        return drawn, _own(given), top
    if given.get("tokens") is not None:
        tops = given.get("top_logprobs") or [{} for _ in given["tokens"]]
        return (
            [identity(token) for token in given["tokens"]],
            _own(given),
            [[(identity(token), logprob) for token, logprob in (top or {}).items()] for top in tops],
        )
    return [], None, []


def label_logprobs(content: bytes, labels: tuple[str, ...]) -> tuple[float, ...] | None:
    """The log-probabilities of labels as the first token of an answer, from the likeliest that the server lists; of either API.
    None where it lists none of them, or none at all."""
    given = orjson.loads(content)["choices"][0].get("logprobs") or {}
    if given.get("content"):
        listed = [(one["token"], one["logprob"]) for one in given["content"][0].get("top_logprobs") or ()]
    else:
        listed = list(((given.get("top_logprobs") or [None])[0] or {}).items())
    each = [[logprob for token, logprob in listed if token.strip() == label] for label in labels]
    if not any(each):
        return None
    return tuple(float(np.logaddexp.reduce(np.array([*one, -np.inf], np.float64))) for one in each)


def calibrate(drawn: list[Any], tops: list[list[tuple[Any, float]]], asked: int) -> Sums | None:
    """Sums over T tokens, given the `asked` likeliest at each; None where a server gave none.

    Servers list the drawn token too: beside the others (vLLM completions) or in the place of the least likely (vLLM chat). So
    that what is predicted does not depend on what was drawn, only those are used that are likelier than number `asked` - 1: in
    either case they are all listed. Tokens as likely as each other are ordered by identity, for the same reason.
    """
    k = min(asked, max((len(top) for top in tops), default=asked))
    if k < 3:
        return None
    numbers: dict[Any, int] = {}
    listed, logprobs = np.full((len(drawn), k), -1, np.int64), np.full((len(drawn), k), -np.inf)
    for row, top in enumerate(tops):
        merged: dict[Any, float] = {}
        for token, logprob in top:  # different tokens may have one text
            merged[token] = float(np.logaddexp(merged[token], logprob)) if token in merged else logprob
        ranked = sorted(merged.items(), key=lambda item: (-item[1], str(item[0])))
        least = ranked[k - 2][1] if len(ranked) >= k - 1 else -np.inf
        for column, (token, logprob) in enumerate(item for item in ranked if item[1] > least):
            listed[row, column], logprobs[row, column] = numbers.setdefault(token, len(numbers)), logprob
    return sums(np.array([numbers.get(token, -2) for token in drawn]), listed, logprobs)
