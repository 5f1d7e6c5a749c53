"""How completions end, in the words of engines and servers, and what the pool calls it.

| pool | means |
|---|---|
| `stop` | the model ended its answer, or a stop string did |
| `length` | cut at max_tokens, or at the end of the context |
| `tool_calls` | it ends in calls of tools |
| `repetition` | the engine stopped a loop (vLLM) |
| `content_filter` | a policy withholds it, or the rest of it |
| `abort` | the engine or the server gave up |
"""

from collections.abc import Mapping
from types import MappingProxyType

CONTENT_FILTER, ABORT = "content_filter", "abort"

SPELLINGS: Mapping[str, Mapping[str, str]] = MappingProxyType({
    "stop": MappingProxyType({
        "stop": "vLLM, OpenAI, Gemini, Mistral, SGLang, llama.cpp, Ollama",
        "eos_token": "TGI", "endofsequencetoken": "TGI", "stopsequence": "TGI",
        "stop_sequence": "TGI, Anthropic, Cohere", "end_turn": "Anthropic, Bedrock",
        "complete": "Cohere", "completed": "OpenAI Responses", "eos": "llama.cpp, Together", "word": "llama.cpp",
    }),
    "length": MappingProxyType({
        "length": "vLLM, OpenAI, Mistral, TGI, SGLang, llama.cpp, Ollama",
        "max_tokens": "Anthropic, Gemini, Cohere", "model_length": "Mistral", "max_output_tokens": "OpenAI Responses",
        "limit": "llama.cpp", "error_limit": "Cohere", "token_limit": "watsonx",
        "model_context_window_exceeded": "Anthropic, Bedrock",
    }),
    "tool_calls": MappingProxyType({
        "tool_calls": "vLLM, OpenAI, Mistral, SGLang, llama.cpp",
        "function_call": "OpenAI", "tool_use": "Anthropic, Bedrock", "tool_call": "Cohere",
    }),
    "repetition": MappingProxyType({"repetition": "vLLM"}),
    CONTENT_FILTER: MappingProxyType({
        "content_filter": "OpenAI, Azure", "content_filtered": "Bedrock", "guardrail_intervened": "Bedrock",
        "refusal": "Anthropic", "error_toxic": "Cohere", "safety": "Gemini", "recitation": "Gemini",
        "blocklist": "Gemini", "prohibited_content": "Gemini", "spii": "Gemini", "language": "Gemini",
        "image_safety": "Gemini", "image_prohibited_content": "Gemini", "image_recitation": "Gemini",
        "model_armor": "Gemini",
    }),
    ABORT: MappingProxyType({
        "abort": "vLLM, SGLang", "aborted": "SGLang", "error": "vLLM, Mistral, Cohere",
        "cancelled": "OpenAI Responses", "failed": "OpenAI Responses", "user_cancel": "Cohere", "timeout": "Cohere",
        "insufficient_system_resource": "DeepSeek", "pause_turn": "Anthropic",
        "malformed_function_call": "Gemini", "malformed_response": "Gemini", "unexpected_tool_call": "Gemini",
        "too_many_tool_calls": "Gemini",
        "load": "Ollama", "unload": "Ollama", "malformed_model_output": "Bedrock",
        "malformed_tool_use": "Bedrock", "canceled": "OpenAI",
    }),
})  # fmt: skip
"""The pool's words, and for each the words (in lower case) that mean the same, with who says them."""

_POOL = MappingProxyType({word: reason for reason, words in SPELLINGS.items() for word in words})


def pool_reason(word: str) -> str | None:
    """The pool's word for how an engine or a server says that a completion ended, in any case and with any prefix of an
    enumeration (`FinishReason.MAX_TOKENS`), and without an explanation after a colon (`content_filter: RECITATION`). None for an
    unknown word."""
    plain = word.partition(":")[0].strip().lower()
    if plain in _POOL:
        return _POOL[plain]
    plain = plain.rpartition(".")[2].removeprefix("finish_reason_").replace("-", "_").replace(" ", "_")
    return _POOL.get(plain)
