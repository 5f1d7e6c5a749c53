"""Reads the log-probabilities of an answer, in the forms of the chat API and of the completions API, and calibrates them."""

from dataclasses import replace
from math import exp
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from thresher.estimators.calibration import Sums, sums
from thresher.samplers.sampler import Completion

NO_CHANCE = -9999.0
"""What vLLM's server writes for a log-probability of minus infinity, which JSON does not have."""

MOST = 1e-3
"""The largest log-probability that is taken for one, also of all listed tokens of a position together: 0, and rounding. vLLM
started with --logprobs-mode raw_logits gives up to +45."""
LEAST = float(np.finfo(np.float32).min)
"""The least one, which llama.cpp writes for minus infinity."""

TopTokens = list[tuple[Any, float]]
"""The likeliest tokens at one position, each with its log-probability."""


class TokenLogprobs(NamedTuple):
    """The T drawn tokens of a choice, their log-probabilities (T,), and the likeliest tokens at each position. A token is its id
    if the server reports it, otherwise its text and bytes."""

    tokens: list[Any]
    logprobs: NDArray[np.float64] | None
    top: list[TopTokens]


def token_numbers(values: Any, what: str) -> NDArray[np.int32]:
    """Return token ids (T,) from a JSON list. Raises ValueError for anything but integers from 0 on."""
    if not isinstance(values, list) or set(map(type, values)) - {int} or min(values, default=0) < 0:
        raise ValueError(f"{what}: wanted a list of token ids, found {str(values)[:80]}")
    return np.array(values, np.int32)


def numbers(values: list[Any]) -> NDArray[np.float64]:
    """Return log-probabilities (T,) from JSON values. Raises ValueError for anything but numbers that can be ones."""
    if set(map(type, values)) - {int, float}:
        odd = next(value for value in values if type(value) not in (int, float))
        raise ValueError(f"log-probabilities: wanted {len(values)} numbers, found {str(odd)[:80]}")
    array = np.array(values, np.float64)
    if not np.isfinite(array).all():
        raise ValueError("log-probabilities that are not finite")
    if array.max(initial=0) > MOST or array.min(initial=0) < LEAST:
        raise ValueError(f"log-probabilities from {array.min():g} to {array.max():g}, which are impossible: logits?")
    return array


def drawn_logprobs(fields: dict[str, Any]) -> NDArray[np.float64] | None:
    """Return the log-probabilities of the drawn tokens (T,) from the `logprobs` object of a choice, None if it has none."""
    if fields.get("content") is not None:
        return numbers([entry["logprob"] for entry in fields["content"]])
    if fields.get("tokens") is None:
        return None
    if len(fields["tokens"]) != len(fields["token_logprobs"]):
        raise ValueError(f"{len(fields['token_logprobs'])} log-probabilities of {len(fields['tokens'])} tokens")
    return numbers(fields["token_logprobs"])


def read_logprobs(fields: dict[str, Any]) -> TokenLogprobs:
    """Read the `logprobs` object of a choice."""
    if fields.get("content") is not None:
        entries = fields["content"]
        top = [[(_identity(t["token"], t.get("bytes")), t["logprob"]) for t in e.get("top_logprobs") or ()] for e in entries]
        tokens = [_identity(entry["token"], entry.get("bytes")) for entry in entries]
        return TokenLogprobs(tokens, drawn_logprobs(fields), top)
    if fields.get("tokens") is not None:
        lists = fields.get("top_logprobs") or [{} for _ in fields["tokens"]]
        return TokenLogprobs(
            [_identity(token) for token in fields["tokens"]],
            drawn_logprobs(fields),
            [[(_identity(token), logprob) for token, logprob in (listed or {}).items()] for listed in lists],
        )
    return TokenLogprobs([], None, [])


def shown_text(drawn: TokenLogprobs) -> str | None:
    """Return the text of the drawn tokens, None if a token is named by its id or may be no whole character."""
    texts = [token[0] for token in drawn.tokens if isinstance(token, tuple)]
    whole = len(texts) == len(drawn.tokens) and all(text and "\ufffd" not in text for text in texts)
    return "".join(texts) if whole else None


def _identity(token: str, raw: list[int] | None = None) -> Any:
    number = token.removeprefix("token_id:")
    return int(number) if number != token and number.isdigit() else (token, None if raw is None else tuple(raw))


def with_top(completion: Completion, drawn: TokenLogprobs, k: int) -> Completion:
    """Return the completion with the k likeliest tokens of each position, if the server lists as many by their ids."""
    counts = np.array([len(listed) for listed in drawn.top], np.int64)
    tokens = [token for listed in drawn.top for token, _ in listed]
    if len(counts) != len(drawn.tokens) or counts.min(initial=k) < k or not all(isinstance(token, int) for token in tokens):
        return completion
    ids = np.array(tokens, np.int32)
    logprobs = numbers([logprob for listed in drawn.top for _, logprob in listed]).astype(np.float32)
    logprobs[logprobs <= NO_CHANCE] = -np.inf
    order = np.lexsort((ids, -logprobs, np.repeat(np.arange(len(counts)), counts)))
    first = order[(np.cumsum(counts) - counts)[:, None] + np.arange(k)]
    return replace(completion, top_ids=ids[first], top_logprobs=logprobs[first])


def label_logprobs(fields: dict[str, Any], labels: tuple[str, ...]) -> tuple[float, ...] | None:
    """Return the log-probability of each label as the first token of an answer, from the `logprobs` object of its choice: the
    server's list of the likeliest.

    None if the list has none of the labels, or the server gives no list.
    """
    if fields.get("content"):
        listed = [(entry["token"], entry["logprob"]) for entry in fields["content"][0].get("top_logprobs") or ()]
    else:
        listed = list(((fields.get("top_logprobs") or [None])[0] or {}).items())
    matches = [[logprob for token, logprob in listed if token.strip() == label] for label in labels]
    if not any(matches):
        return None
    return tuple(float(np.logaddexp.reduce(np.array([*numbers(logprobs), -np.inf], np.float64))) for logprobs in matches)


def calibrate(tokens: list[Any], top: list[TopTokens], asked: int) -> tuple[Sums, int] | None:
    """Return the calibration sums of T drawn tokens from the `asked` likeliest at each position, and how many positions were left
    out because their list is not whole (calibration.whole); None if a server lists too few.

    Raises ValueError for log-probabilities that cannot be ones.

    Servers list the drawn token too: beside the others (vLLM completions) or instead of the least likely (vLLM chat). A
    prediction must not depend on the draw, so only tokens likelier than number `asked` - 1 count: both kinds of lists have all
    of them. Equally likely tokens are ordered by identity, for the same reason.
    """
    numbers([logprob for listed in top for _, logprob in listed])
    k = min(asked, max((len(listed) for listed in top), default=asked))
    if k < 3:
        return None
    columns: dict[Any, int] = {}
    listed, logprobs = np.full((len(tokens), k), -1, np.int64), np.full((len(tokens), k), -np.inf)
    kept = np.ones(len(tokens), bool)
    for row, entries in enumerate(top):
        values = [logprob for _, logprob in entries if logprob > NO_CHANCE]
        kept[row] = len(values) >= k or sum(map(exp, values)) > 1 - MOST
        merged: dict[Any, float] = {}
        for token, logprob in entries:  # different tokens may have the same text
            merged[token] = float(np.logaddexp(merged[token], logprob)) if token in merged else logprob
        ranked = sorted(merged.items(), key=lambda item: (-item[1], str(item[0])))
        least = ranked[k - 2][1] if len(ranked) >= k - 1 else -np.inf
        for column, (token, logprob) in enumerate(item for item in ranked if item[1] > least):
            listed[row, column], logprobs[row, column] = columns.setdefault(token, len(columns)), logprob
    total = float(np.logaddexp.reduce(logprobs, axis=1).max(initial=-np.inf))
    if total > MOST:
        raise ValueError(f"the probabilities of the likeliest tokens of a position sum to {np.exp(min(total, 700)):g}")
    drawn = np.array([columns.get(token, -2) for token in tokens], np.int64)
    return sums(drawn[kept], listed[kept], logprobs[kept]), len(tokens) - int(kept.sum())
