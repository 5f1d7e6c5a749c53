"""The words in which servers refuse a request, and the form of requests that follows from them.

The form of requests to a server starts from its dialect and loses what the server refuses. Sampling fields are left out only
where the recipe's value is the neutral one.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from thresher.estimators.calibration import TOP_K
from thresher.samplers.http.dialects import VLLM_FIXED, VLLM_SAMPLING, Dialect, Extensions
from thresher.samplers.sampler import NEUTRAL

BUSY = frozenset({408, 425, 429, 503, 529})
"""Statuses of a server that has too much to do."""
LASTING = frozenset({400, 413, 422, 451})
"""Statuses that say that something is wrong with a request itself."""
KEY_REFUSED = frozenset({401, 403})
MODEL_MISSING = 404

LENGTH_FIELDS: tuple[Literal["max_tokens"], Literal["max_completion_tokens"]] = ("max_tokens", "max_completion_tokens")
_UNKNOWN_FIELD = (
    "unrecognized", "unknown field", "unknown param", "unknown name", "cannot find field", "extra_forbidden", "extra field",
    "extra input", "additional prop",
)  # fmt: skip
_REFUSING = re.compile(
    r"\b(not|un\w+|in\w+|no|only|must|cannot|can't|extra\w*|forbidden|disallowed|deprecated|remove|illegal|additional)\b|n't\b"
)
"""Words of which a refusal of a field has one, in lower case."""
_OFFERED = re.compile(
    r"\b(?:supported|allowed|valid|known|permitted|accepted) (?:parameter|field|argument|option|key|value|name)s"
)
"""What follows these words is not refused."""
_TOO_LONG = (
    "context length", "context_length", "context window", "context size", "maximum context", "max_model_len", "too long",
    "too large", "too many tokens", "reduce the length", "must have less than", "tokens + `max_new_tokens`",
    "exceeds the maximum",
)  # fmt: skip
_POLICY = ("policy", "policies", "content_filter", "content filter", "moderation", "flagged", "safety", "responsible ai")
_ONE_CHOICE = re.compile(
    r"only one (?:candidate|completion|choice)|(?<![\w-])['\"`]?n['\"`]?\s*(?::|=|must|is|has|greater|>)|[\"'`]n[\"'`]"
)


@dataclass(frozen=True)
class Form:
    """The form of requests to one server: its dialect, less what it has refused."""

    dialect: Dialect
    length_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    top_logprobs: int = TOP_K
    """Likeliest tokens asked for per position when samples are calibrated."""
    logprobs: bool = True
    left_out: frozenset[str] = frozenset()
    """Names out of NEUTRAL, and `seed` or `stop`, that the server does not get."""
    most_choices: int | None = None
    """Most completions of one request, None if there is no known limit."""

    @property
    def omitted(self) -> tuple[str, ...]:
        """Fields that a request lacks because the server refuses them; `n` if it is always 1."""
        further = {"logprobs": not self.logprobs, "top_logprobs": not self.top_logprobs, "n": self.most_choices == 1}
        return tuple(sorted({*self.left_out, *(name for name, lacks in further.items() if lacks)}))


def form_of(dialect: Dialect) -> Form:
    """Return the form of the first request to a server of a dialect."""
    return Form(
        dialect, length_field=dialect.length_field, left_out=frozenset(dialect.left_out), most_choices=dialect.most_choices
    )


def is_too_long(message: str) -> bool:
    """Return whether an error message says that a prompt does not fit."""
    return any(words in message.lower() for words in _TOO_LONG)


def is_lasting(status: int, message: str) -> bool:
    """Return whether a refusal of one prompt is for what the prompt is: by the status, or by words on its length or a policy."""
    return status in LASTING or is_too_long(message) or any(words in message.lower() for words in _POLICY)


def refused_fields(message: str, param: str | None) -> list[str]:
    """Return the sampling fields, `seed` or `stop` that an error refuses: by `param`, the name that OpenAI's errors have, or by
    their names in the message. Of two that may not be sent together, temperature is not among them."""
    text = _OFFERED.split(message.lower())[0]
    names = [*NEUTRAL, "seed", "stop"]
    if param is not None and (name := param.rpartition(".")[2]) in names:
        return [name]
    if not _REFUSING.search(text):
        return []
    if "penalty is not enabled" in text:
        return ["presence_penalty", "frequency_penalty"]
    named = [name for name in names if re.search(rf"(?<![\w-]){name}(?![\w-])", text)]
    return [name for name in named if name != "temperature"] if "cannot both" in text else named


@dataclass(frozen=True)
class Refusal:
    """An error of a server about a request: its words, the `param` that it names, and what the request asked for: the parameters
    of the draw, the API, and whether it asked for top log-probabilities."""

    message: str
    param: str | None
    parameters: Mapping[str, Any]
    api: Literal["chat", "completions"]
    extensions: Extensions = "auto"
    calibrated: bool = False


def needed_fields(form: Form, refusal: Refusal) -> list[str]:
    """Return the fields that the server refuses and the recipe needs: their values are not the neutral ones, or the server would
    take a value of its own."""
    named = [name for name in refused_fields(refusal.message, refusal.param) if name not in form.left_out]
    neutral = {name for name in named if name in NEUTRAL and refusal.parameters[name] == NEUTRAL[name]}
    unsent = {"stop"} if not refusal.parameters["stop"] else set()
    return [name for name in named if name not in unsent and (form.dialect.keeps_defaults or name not in neutral)]


def adapted(form: Form, refusal: Refusal) -> tuple[Form, str | None] | None:
    """Return the form without what the server refused, and a warning about what is lost; None if nothing can be left out."""
    text = refusal.message.lower()
    other = LENGTH_FIELDS[form.length_field == "max_tokens"]
    swaps = other in text or (form.length_field in text and any(words in text for words in _UNKNOWN_FIELD))
    if swaps and form.length_field == form.dialect.length_field and refusal.api == "chat":
        return replace(form, length_field=other), None
    unknown = any(words in text for words in (*VLLM_SAMPLING, *VLLM_FIXED, *form.dialect.fixed_fields, *_UNKNOWN_FIELD))
    if unknown and "must be" not in text and form.dialect.fallback is not None and refusal.extensions == "auto":
        name = form.dialect.version
        plain = replace(form, dialect=form.dialect.fallback)
        return plain, f"refuses {'vLLM' if name == 'vllm' else name}'s fields, so it gets only OpenAI's"
    if not needed_fields(form, refusal):
        names = set(refused_fields(refusal.message, refusal.param)) - form.left_out - {"stop", "seed"}
        if names := {name for name in names if name not in form.dialect.missing_fields}:
            words = f"refuses {', '.join(sorted(names))}, left out: the recipe wants the neutral value"
            return replace(form, left_out=form.left_out | names), words
    if form.most_choices is None and (refusal.param == "n" or _ONE_CHOICE.search(text)):
        return replace(form, most_choices=1), "gives one completion per request"
    return _fewer_logprobs(form, refusal) if "logprobs" in text or "top_n_tokens" in text else None


def _fewer_logprobs(form: Form, refusal: Refusal) -> tuple[Form, str | None] | None:
    if not form.logprobs:
        return None
    if not (refusal.calibrated and form.top_logprobs):
        return replace(form, logprobs=False), "gives no log-probabilities; its samples have none and are not calibrated"
    if form.top_logprobs > 5:  # the limit of several hosted APIs
        return replace(form, top_logprobs=5), None
    return replace(form, top_logprobs=0), "gives no top log-probabilities, so its samples are not calibrated"


ADVICE: Mapping[str, str] = {
    "temperature": "set sampling.temperature to 1, and sampling.anchor to false if it is the greedy answer that is refused",
    "seed": "set sampling.seeds to engine",
}
"""What to do about a refused field that the recipe needs; without an entry, it is removed from the recipe."""


def needed_words(form: Form, refusal: Refusal) -> str:
    """Return, in words, which fields the recipe needs and the server refuses, and what to do; empty if there are none."""
    values = refusal.parameters
    names = [name for name in needed_fields(form, refusal) if name not in NEUTRAL or values[name] != NEUTRAL[name]]
    if not names:
        return ""
    needed = ", ".join(f"{name} {values[name]}" if name in values else name for name in names)
    advice = [ADVICE.get(name, f"remove sampling.{name} from the recipe, or draw from a server that takes it") for name in names]
    return f"; the recipe needs {needed}: {'; '.join(advice)}"
