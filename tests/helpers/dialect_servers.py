"""A server of each dialect: its list of models, what it refuses, in its own words, and the shape of its answers. From the sources
that docs/servers.md names."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

Refuse = Callable[[dict[str, Any]], tuple[int, Any] | None]
Shape = Callable[[dict[str, Any], dict[str, Any]], Any]


@dataclass(frozen=True)
class Served:
    """A server. `refuse` is what it answers to a request that it does not take, and `refused_prompt` what it answers to a prompt
    that it does not take, `words` of which are in the error. `host` stands for its host name, if it is known by that. `left_out`
    is what it does not get, once that is learnt."""

    listing: Any
    refused_prompt: tuple[int, Any]
    words: str
    refuse: Refuse = lambda body: None
    shape: Shape = lambda answer, body: answer
    told: dict[str, Any] = field(default_factory=dict)
    prefix: str = "/v1"
    host: str | None = None
    check: str = "models"
    gives_n: bool = True
    logprobs: bool = True
    left_out: tuple[str, ...] = ()
    version: str = "unknown"
    context: int = 0
    lacks: tuple[str, ...] = ()


def data(**card: Any) -> dict[str, Any]:
    return {"object": "list", "data": [{"id": "small", "object": "model", "created": 1} | card]}


def openai_error(message: str, param: str | None = None, code: str | None = None) -> dict[str, Any]:
    return {"error": {"message": message, "type": "invalid_request_error", "param": param, "code": code}}


def one_choice(answer: dict[str, Any], body: dict[str, Any]) -> dict[str, Any]:
    """An answer of a server that ignores n."""
    return answer | {"choices": answer["choices"][:1]}


def without_logprobs(answer: dict[str, Any], body: dict[str, Any]) -> dict[str, Any]:
    return answer | {"choices": [choice | {"logprobs": None} for choice in answer["choices"]]}


# -- servers of one's own ----------------------------------------------------------------------------------------------


def _sglang(body: dict[str, Any]) -> tuple[int, Any] | None:
    if body["top_k"] == 0:
        message = "top_k must be -1 (disable), or at least 1, got 0."
        return 400, {"object": "error", "message": message, "type": "BadRequest", "param": None, "code": 400}
    return None


def _llama_cpp(body: dict[str, Any]) -> tuple[int, Any] | None:
    if body["n"] > 1:  # of builds before n_cmpl
        return 500, {"error": {"code": 500, "message": "Only one completion choice is allowed", "type": "server_error"}}
    return None


def _llama_cpp_shape(answer: dict[str, Any], body: dict[str, Any]) -> dict[str, Any]:
    return answer if body.get("top_logprobs") else without_logprobs(answer, body)


def _tgi(body: dict[str, Any]) -> tuple[int, Any] | None:
    assert "presence_penalty" not in body  # it would be a repetition_penalty of 2
    if body.get("top_p", 0.5) >= 1:
        return 422, {"error": "Input validation error: `top_p` must be > 0.0 and < 1.0", "error_type": "validation"}
    if body.get("top_logprobs", 0) > 5:
        message = "Input validation error: `top_n_tokens` must be >= 0 and <= 5. Given: 20"
        return 422, {"error": message, "error_type": "validation"}
    return None


_TGI_LONG = (
    "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 1000. Given: 999 `inputs` tokens and 5 "
    "`max_new_tokens`"
)

# -- hosted ------------------------------------------------------------------------------------------------------------


def _reasoning_model(body: dict[str, Any]) -> tuple[int, Any] | None:
    if "max_tokens" in body:
        message = "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."
        return 400, openai_error(message, "max_tokens", "unsupported_parameter")
    if body.get("temperature", 1) != 1:
        message = "Unsupported value: 'temperature' does not support 0 with this model. Only the default (1) value is supported."
        return 400, openai_error(message, "temperature", "unsupported_value")
    for name in ("top_p", "presence_penalty", "frequency_penalty", "logprobs"):
        if name in body:
            message = f"Unsupported parameter: '{name}' is not supported with this model."
            return 400, openai_error(message, name, "unsupported_parameter")
    return None


_AZURE_FILTERED = {
    "error": {
        "message": "The response was filtered due to the prompt triggering Azure OpenAI's content management policy. Please "
        "modify your prompt and retry.",
        "type": None,
        "param": "prompt",
        "code": "content_filter",
        "status": 400,
        "innererror": {"code": "ResponsibleAIPolicyViolation", "content_filter_result": {"jailbreak": {"filtered": True}}},
    }
}


def _mistral(body: dict[str, Any]) -> tuple[int, Any] | None:
    extra = [name for name in ("logprobs", "top_logprobs", "seed") if name in body]
    detail = [{"type": "extra_forbidden", "loc": ["body", name], "msg": "Extra inputs are not permitted"} for name in extra]
    return (422, {"object": "error", "message": {"detail": detail}, "type": "invalid_request_error"}) if extra else None


_MISTRAL_LONG = "Prompt contains 1200 tokens and 0 draft tokens, too large for model with 1000 maximum context length"


def _together_shape(answer: dict[str, Any], body: dict[str, Any]) -> dict[str, Any]:
    choices = []
    for choice in answer["choices"]:
        entries = choice["logprobs"]["content"]
        lists = {"tokens": [entry["token"] for entry in entries], "token_logprobs": [entry["logprob"] for entry in entries]}
        choices.append(choice | {"logprobs": lists, "finish_reason": "eos" if choice["finish_reason"] == "stop" else "length"})
    return answer | {"choices": choices}


def _groq(body: dict[str, Any]) -> tuple[int, Any] | None:
    if body["n"] > 1:
        return 400, {"error": {"message": "'n' : number must be at most 1", "type": "invalid_request_error"}}
    if "logprobs" in body:
        return 400, {"error": {"message": "`logprobs` is not supported with this model", "type": "invalid_request_error"}}
    return None


def _gemini(body: dict[str, Any]) -> tuple[int, Any] | None:
    unknown = [name for name in ("presence_penalty", "frequency_penalty", "logprobs", "top_logprobs") if name in body]
    lines = [f'Invalid JSON payload received. Unknown name "{name}": Cannot find field.' for name in unknown]
    if body["n"] > 1:
        lines = ["Only one candidate can be specified in the current model"]
    return (400, [{"error": {"code": 400, "message": "\n".join(lines), "status": "INVALID_ARGUMENT"}}]) if lines else None


def _anthropic(body: dict[str, Any]) -> tuple[int, Any] | None:
    if body["n"] != 1:
        return 400, {"error": {"message": "n: must be 1", "type": "invalid_request_error", "code": "invalid_request_error"}}
    if "temperature" in body and "top_p" in body:
        message = "`temperature` and `top_p` cannot both be specified for this model. Please use only one."
        return 400, {"error": {"message": message, "type": "invalid_request_error", "code": "invalid_request_error"}}
    return None


def _withheld(reason: str, **message: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "finish_reason": reason, "message": {"role": "assistant", **message}}]}


_MODERATED = {
    "code": 403,
    "message": "Your chosen model requires moderation and your input was flagged",
    "metadata": {"reasons": ["violence"]},
}

SERVERS: dict[str, Served] = {
    "vLLM": Served(
        data(owned_by="vllm", max_model_len=1000),
        (400, {"error": {"message": "Conversation roles must alternate user/assistant/...", "type": "BadRequestError"}}),
        "Conversation roles must alternate",
        told={"/version": {"version": "0.32.0"}},
        version="vllm 0.32.0",
        context=1000,
    ),
    "SGLang": Served(
        data(owned_by="sglang", max_model_len=1000),
        (400, {"object": "error", "message": "The input (1200 tokens) is longer than the model's context length (1000 tokens)."}),
        "is longer than the model's context length",
        refuse=_sglang,
        told={"/get_server_info": {"version": "0.5.6"}},
        version="sglang 0.5.6",
        context=1000,
    ),
    "llama.cpp": Served(
        {"models": [{"name": "small"}], **data(owned_by="llamacpp", meta={"n_ctx_train": 4096, "n_ctx": 1000})},
        (400, {"error": {"code": 400, "message": "the request exceeds the available context size, try increasing it",
                         "type": "exceed_context_size_error"}}),
        "exceeds the available context size",
        refuse=_llama_cpp,
        shape=_llama_cpp_shape,
        told={"/props": {"build_info": "b6900"}},
        gives_n=False,
        left_out=("n",),
        version="llama.cpp b6900",
        context=1000,
    ),
    "TGI": Served(
        data(owned_by="small", created=0),
        (422, {"error": _TGI_LONG, "error_type": "validation"}),
        "`inputs` tokens + `max_new_tokens` must be <= 1000",
        refuse=_tgi,
        shape=one_choice,
        told={"/info": {"version": "3.3.7"}},
        gives_n=False,
        left_out=("n", "top_p"),
        version="text-generation-inference 3.3.7",
        lacks=("presence_penalty",),
    ),
    "Ollama": Served(
        data(id="small:latest", owned_by="library"),
        (400, openai_error("the input length exceeds the context length")),
        "the input length exceeds the context length",
        shape=one_choice,
        told={"/api/version": {"version": "0.12.11"}},
        gives_n=False,
        left_out=("n",),
        version="ollama 0.12.11",
    ),
    "OpenAI": Served(
        data(owned_by="system"),
        (400, openai_error("Your prompt was flagged as potentially violating our usage policy.", code="invalid_prompt")),
        "potentially violating our usage policy",
        refuse=_reasoning_model,
        host="api.openai.com",
        logprobs=False,
        left_out=("frequency_penalty", "logprobs", "presence_penalty", "top_p"),
        version="openai",
    ),
    "Azure": Served(
        data(id="gpt-4o", owned_by="system"),
        (400, _AZURE_FILTERED),
        "content management policy",
        prefix="/openai/v1",
        host="openai.azure.com",
        check="completion",
        version="azure",
    ),
    "OpenRouter": Served(
        data(context_length=1000),
        (403, {"error": _MODERATED}),
        "requires moderation and your input was flagged",
        shape=lambda answer, body: without_logprobs(one_choice(answer, body), body),
        prefix="/api/v1",
        host="openrouter.ai",
        gives_n=False,
        logprobs=False,
        left_out=("n",),
        version="openrouter",
        context=1000,
    ),
    "Mistral": Served(
        data(owned_by="mistralai", max_context_length=1000),
        (400, {"object": "error", "message": _MISTRAL_LONG, "type": "invalid_request_prompt", "code": "3051"}),
        "too large for model with 1000 maximum context length",
        refuse=_mistral,
        host="api.mistral.ai",
        logprobs=False,
        left_out=("logprobs",),
        version="mistral",
        context=1000,
    ),
    "Together": Served(
        [{"id": "small", "object": "model", "type": "chat", "context_length": 1000}],
        (422, {"error": {"message": "The input (1200 tokens) is longer than the model's context length (1000 tokens)."}}),
        "is longer than the model's context length",
        shape=_together_shape,
        host="api.together.xyz",
        version="together",
        context=1000,
    ),
    "Groq": Served(
        data(owned_by="Meta", context_window=1000),
        (400, openai_error("Please reduce the length of the messages or completion.", "messages", "context_length_exceeded")),
        "Please reduce the length",
        refuse=_groq,
        host="api.groq.com",
        gives_n=False,
        logprobs=False,
        left_out=("logprobs", "n"),
        version="groq",
        context=1000,
    ),
    "Gemini": Served(
        data(id="models/small", owned_by="google"),
        (200, _withheld("content_filter: PROHIBITED_CONTENT")),
        "content_filter: PROHIBITED_CONTENT",
        refuse=_gemini,
        prefix="/v1beta/openai",
        host="generativelanguage.googleapis.com",
        gives_n=False,
        logprobs=False,
        left_out=("frequency_penalty", "logprobs", "n", "presence_penalty"),
        version="gemini",
    ),
    "Anthropic": Served(
        404,
        (200, _withheld("refusal", content="I can't help with that.")),
        "refusal",
        refuse=_anthropic,
        shape=without_logprobs,
        host="api.anthropic.com",
        check="completion",
        gives_n=False,
        logprobs=False,
        left_out=("n", "top_p"),
        version="anthropic",
        lacks=("presence_penalty", "frequency_penalty"),
    ),
}  # fmt: skip
