"""What each family of OpenAI-compatible servers understands, as tables. docs/servers.md says where each line is from.

A server's dialect is known from its list of models or from its host name. What a dialect does not say is learnt from the server's
refusals, see thresher.samplers.http.refusals.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Literal

from thresher.samplers.declared import LEAST_TEMPERATURE, MOST_TEMPERATURE

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
_NOTHING: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True)
class Dialect:
    """A family of servers."""

    version: str
    """Recorded as the engine's version if the server does not report one."""
    missing_fields: tuple[str, ...] = ()
    """Names out of NEUTRAL that the family does not understand, or understands as something else."""
    left_out: tuple[str, ...] = ()
    """Names out of NEUTRAL that are sent only if the recipe's value is not the neutral one, which the family refuses."""
    spellings: Mapping[str, str] = field(default_factory=lambda: _NOTHING)
    """What the family calls fields that have another name at OpenAI or vLLM."""
    top_k_off: int = 0
    """The value of top_k that truncates nothing."""
    most_temperature: float | None = None
    least_temperature: float = 0.0
    """Temperatures above 0 and below this are raised to it."""
    """The temperature to which a higher one is reduced without an error."""
    keeps_defaults: bool = False
    """Whether a field that is not sent takes a value of the server's own, such as that of the model's generation_config. No
    sampling field is left out then."""
    fixed_fields: Mapping[str, Any] = field(default_factory=lambda: _NOTHING)
    """Sent with every request."""
    label_fields: Mapping[str, Any] = field(default_factory=lambda: _NOTHING)
    """Sent when the answer must be one of several labels."""
    restricts_to: Literal["structured_outputs", "response_format"] = "response_format"
    """The field that restricts an answer to labels."""
    length_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    most_choices: int | None = None
    """Most completions of one request; None if there is no known limit."""
    version_at: tuple[str, str] | None = None
    """Where the server reports its version: the path from its root, and the name in the JSON object there."""
    weights_at: tuple[str, str] | None = None
    """Where it reports the version of its weights."""
    logprobs_kind: str = "unknown"
    """See EngineFacts."""
    logprobs_count: bool = False
    """Whether the chat API takes the number of log-probabilities per position as `logprobs`, as the completions API does."""
    least_logprobs: int = 0
    """Likeliest tokens that must be asked for to get log-probabilities at all."""
    sure_logprobs: bool = False
    """Whether the server gives all log-probabilities that it was asked for, so that an answer without them is none. A gateway
    may drop all of them."""
    takes_seeds: bool = True
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


OPENAI_LIKE = Dialect(version="unknown", missing_fields=VLLM_SAMPLING)
"""All servers of which nothing is known."""

VLLM_PLAIN = Dialect(
    version="vllm",
    missing_fields=VLLM_SAMPLING,
    version_at=("/version", "version"),
    weights_at=("/weight_info", "weight_version"),
    logprobs_kind="raw",
    most_temperature=MOST_TEMPERATURE,
    least_temperature=LEAST_TEMPERATURE,
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
    keeps_defaults=True,
    fixed_fields=VLLM_FIXED,
    label_fields=MappingProxyType({"return_tokens_as_token_ids": False}),
    restricts_to="structured_outputs",
    sure_logprobs=True,
    fallback=VLLM_PLAIN,
)
_SGLANG_PLAIN = Dialect(version="sglang", missing_fields=VLLM_SAMPLING, version_at=("/get_server_info", "version"))
SGLANG = replace(
    _SGLANG_PLAIN,
    missing_fields=(),
    keeps_defaults=True,  # --sampling-defaults model
    top_k_off=-1,
    fixed_fields=MappingProxyType({"min_tokens": 0, "ignore_eos": False, "skip_special_tokens": False}),
    sure_logprobs=True,
    fallback=_SGLANG_PLAIN,
)
_LLAMA_CPP_PLAIN = Dialect(version="llama.cpp", missing_fields=VLLM_SAMPLING, version_at=("/props", "build_info"))
LLAMA_CPP = replace(
    _LLAMA_CPP_PLAIN,
    missing_fields=(),
    keeps_defaults=True,  # top_k 40, top_p 0.95 and min_p 0.05, unless it was started with others
    spellings=MappingProxyType({"repetition_penalty": "repeat_penalty"}),
    fixed_fields=MappingProxyType(
        {
            "typical_p": 1.0,
            "top_n_sigma": -1.0,
            "xtc_probability": 0.0,
            "dry_multiplier": 0.0,
            "dynatemp_range": 0.0,
            "mirostat": 0,
        }
    ),
    logprobs_kind="raw",
    least_logprobs=1,
    fallback=_LLAMA_CPP_PLAIN,
)
TGI = Dialect(
    version="text-generation-inference",
    # It adds 2 to presence_penalty and takes the sum as repetition_penalty: a penalty of 0 would be one of 2.
    missing_fields=(*VLLM_SAMPLING, "presence_penalty"),
    left_out=("top_p",),
    most_choices=1,
    version_at=("/info", "version"),
)
OLLAMA = Dialect(version="ollama", missing_fields=VLLM_SAMPLING, most_choices=1, version_at=("/api/version", "version"))
OPENAI = Dialect(version="openai", missing_fields=VLLM_SAMPLING, length_field="max_completion_tokens")
AZURE = replace(OPENAI, version="azure")
OPENROUTER = Dialect(version="openrouter", missing_fields=VLLM_SAMPLING, most_choices=1)
MISTRAL = Dialect(version="mistral", missing_fields=VLLM_SAMPLING, spellings=MappingProxyType({"seed": "random_seed"}))
TOGETHER = Dialect(version="together", missing_fields=VLLM_SAMPLING, logprobs_count=True)
GROQ = Dialect(version="groq", missing_fields=VLLM_SAMPLING, most_choices=1)
GEMINI = Dialect(version="gemini", missing_fields=VLLM_SAMPLING, most_choices=1)
ANTHROPIC = Dialect(
    version="anthropic",
    missing_fields=(*VLLM_SAMPLING, "presence_penalty", "frequency_penalty"),
    most_temperature=1.0,
    most_choices=1,
    takes_seeds=False,
)

DIALECT_OF_OWNER: Mapping[str, Dialect] = MappingProxyType(
    {"vllm": VLLM, "sglang": SGLANG, "llamacpp": LLAMA_CPP, "library": OLLAMA}
)
"""Dialects by the `owned_by` of a model."""
DIALECT_OF_HOST: Mapping[str, Dialect] = MappingProxyType(
    {
        "api.openai.com": OPENAI,
        "openai.azure.com": AZURE,
        "services.ai.azure.com": AZURE,
        "openrouter.ai": OPENROUTER,
        "api.mistral.ai": MISTRAL,
        "api.together.xyz": TOGETHER,
        "api.together.ai": TOGETHER,
        "api.groq.com": GROQ,
        "generativelanguage.googleapis.com": GEMINI,
        "api.anthropic.com": ANTHROPIC,
    }
)
"""Dialects by the host of the server, or a domain that it is in."""
DIALECTS: Mapping[str, Dialect] = MappingProxyType(
    {
        "vLLM": VLLM, "SGLang": SGLANG, "llama.cpp": LLAMA_CPP, "TGI": TGI, "Ollama": OLLAMA, "OpenAI": OPENAI, "Azure": AZURE,
        "OpenRouter": OPENROUTER, "Mistral": MISTRAL, "Together": TOGETHER, "Groq": GROQ, "Gemini": GEMINI,
        "Anthropic": ANTHROPIC,
    }
)  # fmt: skip
"""All known dialects, by the names of docs/servers.md."""

Extensions = Literal["auto", "vllm", "none"]


def dialect_of(card: Mapping[str, Any], host: str, extensions: Extensions) -> Dialect:
    """Return the dialect of a server from the card of its model (empty if it was not read) and its host name; `extensions` is the
    recipe's setting."""
    owner = card.get("owned_by")
    if extensions == "vllm":
        dialect = VLLM
    elif owner is not None and owner == card.get("id") and card.get("created") == 0:
        dialect = TGI
    else:
        named = (dialect for name, dialect in DIALECT_OF_HOST.items() if host == name or host.endswith(f".{name}"))
        dialect = next(named, None) or DIALECT_OF_OWNER.get(str(owner), OPENAI_LIKE)
    return (dialect.fallback or dialect) if extensions == "none" else dialect
