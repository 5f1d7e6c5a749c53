"""What is sent to an OpenAI-compatible server, and how its answers are read: the chat API and the completions API."""

import json
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple

import numpy as np
import orjson
from numpy.typing import NDArray

from schemas.engines import HttpEngine
from thresher.estimators.calibration import Sums, sums
from thresher.samplers.declared import http_fields, only_vllm_forces
from thresher.samplers.http.chat_turns import chat_turns
from thresher.samplers.http.claims import Note, Remembered
from thresher.samplers.http.dialects import VLLM_FIXED, Form
from thresher.samplers.http.parts import read_message
from thresher.samplers.sampler import NEUTRAL, Completion, Group, plain_text

RESERVED_FIELDS = {*NEUTRAL, *VLLM_FIXED} | {
    "model", "messages", "prompt", "n", "seed", "stop", "stream", "logprobs", "top_logprobs", "max_tokens",
    "max_completion_tokens", "best_of", "use_beam_search", "echo", "suffix", "logit_bias", "bad_words", "allowed_token_ids",
    "stop_token_ids", "include_stop_str_in_output", "logprob_token_ids", "response_format", "structured_outputs",
    "truncate_prompt_tokens", "thinking_token_budget", "reasoning_effort",
}  # fmt: skip
"""Fields that engine.extra_body may not set: they decide what is sampled or recorded."""

PROMPT_FIELDS = (
    "model", "messages", "prompt", "tools", "chat_template", "chat_template_kwargs", "add_generation_prompt",
    "continue_final_message", "add_special_tokens",
)  # fmt: skip
"""Fields that decide which tokens a prompt has."""

LABEL_LOGPROBS = 20
"""Likeliest first tokens asked for when a label is wanted; OpenAI and vLLM give no more by default."""
NO_CHANCE = -9999.0
"""What vLLM's server writes for a log-probability of minus infinity, which JSON does not have."""
LABEL_TOKENS = 64
"""max_tokens of a label when the server reports no log-probabilities: room for JSON around it."""


# -- requests ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Service:
    """What all servers of a sampler share: the recipe's engine, the name by which they serve the model, whether completions are
    seeded, where it is noted what they say of the model, and for an adapter its base model."""

    spec: HttpEngine
    model: str
    seeded: bool
    note: Note = field(default_factory=Remembered)
    base_model: str | None = None

    @property
    def path(self) -> str:
        return "/chat/completions" if self.spec.api == "chat" else "/completions"


@dataclass(frozen=True, slots=True)
class Question:
    """Completions `first` to `first + n - 1` of a group, asked for in one request."""

    group: Group
    first: int
    n: int
    calibrated: bool = False


def seed_of(question: Question, service: Service, form: Form) -> int | None:
    """Return the seed of a request, None if it has none."""
    group = question.group
    if not service.seeded or not group.seeds or group.parameters["temperature"] == 0:
        return None
    return group.seeds[question.first] % (1 << form.dialect.seed_bits)


def unsupported_fields(group: Group, form: Form) -> list[str]:
    """Return the sampling fields that a group needs and the server does not understand."""
    missing = [name for name in form.dialect.missing_fields if group.parameters[name] != NEUTRAL[name]]
    return missing + ([] if form.dialect.restricts_to == "structured_outputs" else only_vllm_forces(group.parameters))


def request_body(question: Question, service: Service, form: Form) -> dict[str, Any]:
    """Return the JSON object of a request. All sampling fields are in it, because a server takes a missing one from the model's
    generation_config."""
    group, values, spec = question.group, question.group.parameters, service.spec
    body: dict[str, Any] = {**spec.extra_body, "model": service.model, "n": question.n, "stream": False}
    body |= {name: values[name] for name in NEUTRAL if name not in form.dialect.missing_fields}
    body[form.length_field] = values["max_tokens"]
    if values["stop"]:
        body["stop"] = values["stop"]
    body |= form.dialect.fixed_fields
    if (seed := seed_of(question, service, form)) is not None:
        body["seed"] = seed
    if form.logprobs:
        body |= _logprob_fields(spec, likeliest_asked(question, spec, form))
    body |= http_fields(values, vllm=form.dialect.restricts_to == "structured_outputs")
    if group.labels:
        body |= _label_fields(group.labels, spec, form)
    if spec.api == "chat":
        body["messages"] = chat_turns(group.messages)
        if group.tools is not None:
            body["tools"] = orjson.loads(group.tools)
        if group.template is not None:
            body["chat_template_kwargs"] = orjson.loads(group.template)
    else:
        body["prompt"] = plain_text(group.messages)
    return body


def prompt_body(group: Group, service: Service, form: Form) -> dict[str, Any]:
    """Return the fields of a request that decide how its prompt is rendered, as vLLM's /tokenize takes them: it has no field
    reasoning_effort, which a chat request hands to the template, with enable_thinking unless that is given."""
    body = request_body(Question(group, 0, 1), service, form)
    fields = {name: body[name] for name in PROMPT_FIELDS if name in body}
    if "reasoning_effort" in body:
        effort, arguments = body["reasoning_effort"], body.get("chat_template_kwargs") or {}
        fields["chat_template_kwargs"] = {"enable_thinking": effort != "none", **arguments, "reasoning_effort": effort}
    return fields


def likeliest_asked(question: Question, spec: HttpEngine, form: Form) -> int:
    """Return how many likeliest tokens a request asks for. A chat answer of vLLM lists the drawn token in the place of the last
    one, so one more is asked for than is kept."""
    kept = question.group.keep_top
    return max(form.top_logprobs if question.calibrated else 0, kept + (spec.api == "chat") if kept else 0)


def _logprob_fields(spec: HttpEngine, likeliest: int) -> dict[str, Any]:
    return {"logprobs": True, "top_logprobs": likeliest} if spec.api == "chat" else {"logprobs": likeliest}


def _label_fields(labels: tuple[str, ...], spec: HttpEngine, form: Form) -> dict[str, Any]:
    """Fields that ask for one of the labels: by the log-probabilities of the first token, or by structured output."""
    fields = dict(form.dialect.label_fields)
    if form.dialect.restricts_to == "structured_outputs":
        fields["structured_outputs"] = {"choice": list(labels)}
    if form.logprobs:
        return fields | _logprob_fields(spec, LABEL_LOGPROBS)
    fields[form.length_field] = LABEL_TOKENS
    if form.dialect.restricts_to == "response_format":
        schema: dict[str, Any] = {"type": "object", "properties": {"verdict": {"type": "string", "enum": list(labels)}}}
        schema |= {"required": ["verdict"], "additionalProperties": False}
        fields["response_format"] = {
            "type": "json_schema",
            "json_schema": {"name": "verdict", "strict": True, "schema": schema},
        }
    return fields


# -- answers -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Response:
    """An HTTP response: status, Retry-After header, body."""

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
        """The server's error message, at most 500 characters."""
        message: Any
        try:
            body = self.json()
            message = body.get("error", body.get("detail", body.get("message", body)))
            message = message.get("message", message) if isinstance(message, dict) else message
        except (ValueError, AttributeError):
            message = self.text
        return (message if isinstance(message, str) else json.dumps(message))[:500]

    @property
    def wait_s(self) -> float:
        """Seconds to wait as the server asks, 0 if it does not ask."""
        try:
            return max(0.0, float(self.retry_after))
        except ValueError:
            try:
                return max(0.0, (parsedate_to_datetime(self.retry_after) - datetime.now(UTC)).total_seconds())
            except (ValueError, TypeError):
                return 0.0


@dataclass(frozen=True)
class Tokenised:
    """A prompt as a server reads it. `text` is None if the server does not tell, `context` is 0 if it does not."""

    tokens: int
    text: str | None
    context: int


@dataclass(frozen=True)
class Answer:
    """A complete answer. `tokens` counts all completions; `calibration` has the sums of their tokens. `masked` of these are left
    out, because the server may have been made to draw them."""

    completions: tuple[Completion, ...]
    prompt_ids: NDArray[np.int32] | None
    tokens: int
    calibration: Sums | None
    masked: int = 0


TopTokens = list[tuple[Any, float]]
"""The likeliest tokens at one position, each with its log-probability."""


class TokenLogprobs(NamedTuple):
    """The T drawn tokens of a choice, their log-probabilities (T,), and the likeliest tokens at each position. A token is its id
    if the server reports it, otherwise its text and bytes."""

    tokens: list[Any]
    logprobs: NDArray[np.float64] | None
    top: list[TopTokens]


def read_answer(content: bytes, n: int, *, top_logprobs: int, seed: int | None, keep: int = 0, free: int | None = None) -> Answer:
    """Read the first `n` choices of an answer, and the calibration sums of their tokens if `top_logprobs` likeliest tokens were
    asked for. Only the first `free` tokens of each choice are calibrated, if not None. `keep` likeliest tokens are kept. `seed`
    is the seed of choice 0.

    Raises ValueError, KeyError, TypeError, IndexError or AttributeError if the answer is incomplete.
    """
    body = orjson.loads(content)
    choices = sorted(body["choices"], key=lambda choice: choice["index"])[:n]
    if not choices:
        raise ValueError("no choices")
    tokens: list[Any] = []
    top: list[TopTokens] = []
    completions, length, masked = [], 0, 0
    for choice in choices:
        completion, drawn = _read_choice(choice, with_tokens=bool(top_logprobs or keep), seed=seed)
        if keep:
            completion = _with_top(completion, drawn, keep)
        completions.append(completion)
        length += len(drawn.tokens if completion.token_ids is None else completion.token_ids)
        if top_logprobs:
            tokens += drawn.tokens[:free]
            top += drawn.top[:free]
            masked += len(drawn.tokens) - len(drawn.tokens[:free])
    if len(completions) == 1:
        completions = [_with_reasoning_tokens(completions[0], body.get("usage"))]
    prompt = body.get("prompt_token_ids") or choices[0].get("prompt_token_ids")
    complete = len(top) == len(tokens) and all(completion.logprobs is not None for completion in completions)
    calibration = calibrate(tokens, top, top_logprobs) if top_logprobs and complete else None
    return Answer(tuple(completions), None if prompt is None else np.asarray(prompt, np.int32), length, calibration, masked)


def _with_top(completion: Completion, drawn: TokenLogprobs, k: int) -> Completion:
    """The completion with the k likeliest tokens of each position, if the server lists as many by their ids."""
    counts = np.array([len(listed) for listed in drawn.top], np.int64)
    tokens = [token for listed in drawn.top for token, _ in listed]
    if len(counts) != len(drawn.tokens) or counts.min(initial=k) < k or not all(isinstance(token, int) for token in tokens):
        return completion
    ids = np.array(tokens, np.int32)
    logprobs = np.array([logprob for listed in drawn.top for _, logprob in listed], np.float32)
    logprobs[logprobs <= NO_CHANCE] = -np.inf
    order = np.lexsort((ids, -logprobs, np.repeat(np.arange(len(counts)), counts)))
    first = order[(np.cumsum(counts) - counts)[:, None] + np.arange(k)]
    return replace(completion, top_ids=ids[first], top_logprobs=logprobs[first])


def _with_reasoning_tokens(completion: Completion, usage: Any) -> Completion:
    """Add the number of reasoning tokens, if the server reports it; it reports one for all choices."""
    count = ((usage or {}).get("completion_tokens_details") or {}).get("reasoning_tokens")
    if completion.parts is None or count is None:
        return completion
    return replace(completion, parts=replace(completion.parts, reasoning_tokens=int(count)))


def _read_choice(choice: dict[str, Any], *, with_tokens: bool, seed: int | None) -> tuple[Completion, TokenLogprobs]:
    if choice["finish_reason"] in (None, "abort", "error"):
        raise ValueError(f"finish_reason is {choice['finish_reason']}")
    text, parts = read_message(choice["message"], choice["finish_reason"]) if "message" in choice else (choice["text"], None)
    fields, token_ids = choice.get("logprobs") or {}, choice.get("token_ids")
    if token_ids is not None and not with_tokens:  # most answers: names of tokens are not needed
        drawn = TokenLogprobs(token_ids, _drawn_logprobs(fields), [])
    else:
        drawn = read_logprobs(fields)
    if token_ids is None and drawn.tokens and all(isinstance(token, int) for token in drawn.tokens):
        token_ids = drawn.tokens
    logprobs = drawn.logprobs
    if logprobs is not None and (not np.isfinite(logprobs).all() or (token_ids is not None and len(token_ids) != len(logprobs))):
        count = len(drawn.tokens if token_ids is None else token_ids)
        raise ValueError(f"log-probabilities {logprobs[:3]} ... of {len(logprobs)} tokens, {count} tokens")
    stored = None if logprobs is None else logprobs.astype(np.float32)
    completion = Completion(
        text or "",
        choice["finish_reason"],
        None if choice.get("stop_reason") is None else str(choice["stop_reason"]),
        None if token_ids is None else np.asarray(token_ids, np.int32),
        stored,
        None if stored is None else float(stored.sum(dtype=np.float64)),
        None if seed is None else seed + choice["index"],
        parts=parts,
    )
    return completion, drawn


def _drawn_logprobs(fields: dict[str, Any]) -> NDArray[np.float64] | None:
    """The log-probabilities of the drawn tokens (T,)."""
    if fields.get("content") is not None:
        return np.array([entry["logprob"] for entry in fields["content"]], np.float64)
    return None if fields.get("tokens") is None else np.array(fields["token_logprobs"], np.float64)


def _identity(token: str, raw: list[int] | None = None) -> Any:
    number = token.removeprefix("token_id:")
    return int(number) if number != token and number.isdigit() else (token, None if raw is None else tuple(raw))


def read_logprobs(fields: dict[str, Any]) -> TokenLogprobs:
    """Read the `logprobs` object of a choice."""
    if fields.get("content") is not None:
        entries = fields["content"]
        top = [[(_identity(t["token"], t.get("bytes")), t["logprob"]) for t in e.get("top_logprobs") or ()] for e in entries]
        tokens = [_identity(entry["token"], entry.get("bytes")) for entry in entries]
        return TokenLogprobs(tokens, _drawn_logprobs(fields), top)
    if fields.get("tokens") is not None:
        lists = fields.get("top_logprobs") or [{} for _ in fields["tokens"]]
        return TokenLogprobs(
            [_identity(token) for token in fields["tokens"]],
            _drawn_logprobs(fields),
            [[(_identity(token), logprob) for token, logprob in (listed or {}).items()] for listed in lists],
        )
    return TokenLogprobs([], None, [])


def label_logprobs(content: bytes, labels: tuple[str, ...]) -> tuple[float, ...] | None:
    """Return the log-probability of each label as the first token of an answer, from the server's list of the likeliest.

    None if the list has none of the labels, or the server gives no list.
    """
    fields = orjson.loads(content)["choices"][0].get("logprobs") or {}
    if fields.get("content"):
        listed = [(entry["token"], entry["logprob"]) for entry in fields["content"][0].get("top_logprobs") or ()]
    else:
        listed = list(((fields.get("top_logprobs") or [None])[0] or {}).items())
    matches = [[logprob for token, logprob in listed if token.strip() == label] for label in labels]
    if not any(matches):
        return None
    return tuple(float(np.logaddexp.reduce(np.array([*logprobs, -np.inf], np.float64))) for logprobs in matches)


def calibrate(tokens: list[Any], top: list[TopTokens], asked: int) -> Sums | None:
    """Return the calibration sums of T drawn tokens from the `asked` likeliest at each position; None if a server lists too few.

    Servers list the drawn token too: beside the others (vLLM completions) or instead of the least likely (vLLM chat). A
    prediction must not depend on the draw, so only tokens likelier than number `asked` - 1 count: both kinds of lists have all
    of them. Equally likely tokens are ordered by identity, for the same reason.
    """
    k = min(asked, max((len(listed) for listed in top), default=asked))
    if k < 3:
        return None
    numbers: dict[Any, int] = {}
    listed, logprobs = np.full((len(tokens), k), -1, np.int64), np.full((len(tokens), k), -np.inf)
    for row, entries in enumerate(top):
        merged: dict[Any, float] = {}
        for token, logprob in entries:  # different tokens may have the same text
            merged[token] = float(np.logaddexp(merged[token], logprob)) if token in merged else logprob
        ranked = sorted(merged.items(), key=lambda item: (-item[1], str(item[0])))
        least = ranked[k - 2][1] if len(ranked) >= k - 1 else -np.inf
        for column, (token, logprob) in enumerate(item for item in ranked if item[1] > least):
            listed[row, column], logprobs[row, column] = numbers.setdefault(token, len(numbers)), logprob
    return sums(np.array([numbers.get(token, -2) for token in tokens]), listed, logprobs)
