"""What each family of OpenAI-compatible servers understands, as tables, and the words in which servers refuse a request.

A server's dialect is read from its list of models. The form of a request starts from the dialect and loses what the server
refuses: `adapted` gives the next form to try.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Literal

from thresher.estimators.calibration import TOP_K

VLLM_SAMPLING = ("top_k", "min_p", "repetition_penalty")
"""Sampling fields that vLLM adds to OpenAI's."""
VLLM_FIXED: Mapping[str, Any] = MappingProxyType(
    {
        "min_tokens": 0,
        "ignore_eos": False,
        "watermarking": False,
        "skip_special_tokens": False,
        "return_token_ids": True,
        "return_tokens_as_token_ids": True,
    }
)
"""Further fields sent to vLLM. The first three overrule a server's start options; special tokens are kept in the text, because
marks of thinking and of tool calls are special tokens; the others ask for token ids, because different tokens may have the same
text."""


@dataclass(frozen=True)
class Dialect:
    """A family of servers."""

    version: str
    """Recorded as the engine's version if the server does not report one."""
    missing_fields: tuple[str, ...] = ()
    """Names out of NEUTRAL that the family does not understand."""
    fixed_fields: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    """Sent with every request."""
    label_fields: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    """Sent when the answer must be one of several labels."""
    restricts_to: Literal["structured_outputs", "response_format"] = "response_format"
    """The field that restricts an answer to labels."""
    version_path: str | None = None
    """Where the server reports its version, from its root."""
    weights_path: str | None = None
    """Where it reports the version of its weights, from its root."""
    logprobs_kind: str = "unknown"
    """See EngineFacts."""
    seeds_each_choice: bool = False
    """Whether choice i of a request is seeded with seed + i. If not, a seeded request asks for one completion."""
    seed_bits: int = 31
    """Bits of a seed that the family accepts."""
    cuts_max_tokens: bool = False
    """Whether the server reduces max_tokens without an error."""
    work_counters: tuple[str, ...] = ()
    """Metrics at /metrics that move when the engine works, of all requests together; the first counts the tokens made. Without
    them, a server that answers anything counts as working."""
    tells_tokens: bool = False
    """Whether it answers POST /tokenize and /detokenize at its root."""
    fallback: "Dialect | None" = None
    """The dialect for a server of the family that refuses the family's own fields."""


VLLM_PLAIN = Dialect(
    version="vllm",
    missing_fields=VLLM_SAMPLING,
    version_path="/version",
    weights_path="/weight_info",
    logprobs_kind="raw",
    seeds_each_choice=True,
    seed_bits=63,
    cuts_max_tokens=True,
    # The share of the KV cache in use grows while a long prompt is read in pieces, which makes no token.
    work_counters=("vllm:generation_tokens_total", "vllm:prompt_tokens_total", "vllm:kv_cache_usage_perc"),
    tells_tokens=True,
)
"""vLLM behind a gateway that passes only OpenAI's fields."""
VLLM = replace(
    VLLM_PLAIN,
    missing_fields=(),
    fixed_fields=VLLM_FIXED,
    label_fields=MappingProxyType({"return_tokens_as_token_ids": False}),
    restricts_to="structured_outputs",
    fallback=VLLM_PLAIN,
)
OPENAI = Dialect(version="unknown", missing_fields=VLLM_SAMPLING)
"""All other servers."""

DIALECT_OF_OWNER: Mapping[str, Dialect] = MappingProxyType({"vllm": VLLM})
"""Dialects by the `owned_by` of a model."""

Extensions = Literal["auto", "vllm", "none"]


def dialect_of(owner: object, extensions: Extensions) -> Dialect:
    """Return the dialect of a server from the `owned_by` of its model; `extensions` is the recipe's setting."""
    dialect = VLLM if extensions == "vllm" else DIALECT_OF_OWNER.get(str(owner), OPENAI)
    return (dialect.fallback or dialect) if extensions == "none" else dialect


# -- refusals ----------------------------------------------------------------------------------------------------------

BUSY = frozenset({408, 429, 503})
"""Statuses of a server that has too much to do."""
KEY_REFUSED = frozenset({401, 403})
REQUEST_REFUSED = frozenset({400, 413, 422})
"""Statuses of a request that is wrong; the message tells what is wrong."""
MODEL_MISSING = 404

Refused = Literal["length", "max_tokens", "extensions", "logprobs"]


@dataclass(frozen=True)
class Wording:
    """Words that show what a server refuses: any of `words`, in lower case, and none of `except_words`."""

    refused: Refused
    words: tuple[str, ...]
    except_words: tuple[str, ...] = ()


WORDINGS = (
    Wording(
        "length",
        (
            "context length",
            "context_length",
            "context window",
            "context size",
            "max_model_len",
            "too long",
            "too many tokens",
        ),
    ),
    Wording("max_tokens", ("max_completion_tokens",)),
    Wording(
        "extensions",
        (
            *VLLM_SAMPLING,
            *VLLM_FIXED,
            "unrecognized",
            "unknown field",
            "unknown param",
            "extra_forbidden",
            "extra field",
            "extra input",
            "additional prop",
        ),
        except_words=("must be",),  # the field is known, the value is wrong
    ),
    Wording("logprobs", ("logprobs",)),
)
"""In the order in which they are tried."""


def refusals(message: str) -> list[Refused]:
    """Return what an error message may refuse, the most specific first."""
    text = message.lower()
    return [
        wording.refused
        for wording in WORDINGS
        if any(word in text for word in wording.words) and not any(word in text for word in wording.except_words)
    ]


# -- the form of requests ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Form:
    """The form of requests to one server: its dialect, less what it has refused."""

    dialect: Dialect
    length_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    top_logprobs: int = TOP_K
    """Likeliest tokens asked for per position when samples are calibrated."""
    logprobs: bool = True


def adapted(
    form: Form, refused: Refused, *, api: Literal["chat", "completions"], extensions: Extensions, calibrated: bool
) -> tuple[Form, str | None] | None:
    """Return the form without what the server refused, and a warning about what is lost; None if nothing can be left out.

    `calibrated` tells whether the refused request asked for top log-probabilities.
    """
    if refused == "max_tokens" and form.length_field == "max_tokens" and api == "chat":
        return replace(form, length_field="max_completion_tokens"), None
    if refused == "extensions" and form.dialect.fallback is not None and extensions == "auto":
        return replace(form, dialect=form.dialect.fallback), "refuses vLLM's fields, so it gets only OpenAI's"
    if refused == "logprobs" and form.logprobs:
        if not (calibrated and form.top_logprobs):
            return replace(form, logprobs=False), "gives no log-probabilities; its samples have none and are not calibrated"
        if form.top_logprobs > 5:  # the limit of several hosted APIs
            return replace(form, top_logprobs=5), None
        return replace(form, top_logprobs=0), "gives no top log-probabilities, so its samples are not calibrated"
    return None
