"""vLLM's parsers without a model or an engine: a tokeniser whose only whole tokens are marks, and the server's own parser."""

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from filters.reasoning import CHANNEL
from thresher.inputs.models import Model
from thresher.inputs.parser_names import FORMATS

MARKS = """<think> </think> <seed:think> </seed:think> <mm:think> </mm:think> [THINK] [/THINK] [TOOL_CALLS] [ARGS] <assistant>
    <ifm|think> </ifm|think> <ifm|think_fast> </ifm|think_fast> <ifm|think_faster> </ifm|think_faster> <ifm|tool_calls>
    <response> </response> <|channel> <channel|> <|tool_call> <tool_call|> <|turn> <turn|> <|tool_response> <tool_response|>
    <|open|> <|close|> <|sep|> <|message|> <|eom|> <|eot|> <|start|> <|message_model|> <|content_thinking|> <|content_text|>
    <|end_message|> <|content_invoke_tool_json|> <|content_model_end_sampling|> <|plamo:begin_think:plamo|>
    <|plamo:end_think:plamo|> <tool_call> </tool_call> <|im_start|> <|im_end|> <|tool_calls_section_begin|>
    <|tool_calls_section_end|> <|tool_call_begin|> <|tool_call_end|> <|tool_call_argument_begin|> <minimax:tool_call>
    </minimax:tool_call> <|channel|> <|end|> <|return|> <|python_tag|> [CALL_ID]""".split()

TEMPLATE = {
    "version": 1,
    "defaults": {"role": "assistant"},
    "start_anchor": "<assistant>",
    "fields": {"thinking": {"open": "<think>", "close": "</think>", "content": "text"}, "content": {"content": "text"}},
}
"""What the parser `hf` reads in a tokeniser."""

WRITTEN: Mapping[str, tuple[str, str, str]] = {
    "gemma4": ("<|channel>thought\n", "<channel|>", ""),
    "granite": ("Here is my thought process:", "Here is my response:", ""),
    "hunyuan_a13b": ("<think>\n", "\n</think>\n<answer>\n", "\n</answer>"),
    "inkling": ("<|content_thinking|>", "<|end_message|><|message_model|><|content_text|>", "<|end_message|>"),
    "kimi_k3": ("<|open|>think<|sep|>", "<|close|>think<|sep|><|open|>response<|sep|>", "<|close|>response<|sep|>"),
    "muse_glimmer": ("to=self<|message|>", "<|eom|><|start|>assistant to=user<|message|>", "<|eot|>"),
    "openai_gptoss": (f"{CHANNEL}analysis<|message|>", f"<|end|><|start|>assistant{CHANNEL}final<|message|>", "<|return|>"),
}
"""What opens the thinking, what closes it and opens the answer, and what closes the answer, where that is more than one pair."""


def cases(name: str) -> dict[str, str]:
    """Completions in the format of a reasoning parser: r and q are thoughts, a and z are the answer."""
    start, end, tail = WRITTEN.get(name) or (*FORMATS[name].pairs[0], "")
    return {
        "whole": f"{start}r{end}a{tail}",
        "opened": f"r{end}a{tail}",
        "cut": f"{start}r",
        "no marks": "r",
        "empty thought": f"{start}{end}a{tail}",
        "quoted end": f"{start}r{end}a '{end}' z{tail}",
        "text before": f"x{start}r{end}a{tail}",
        "quoted pair": f"{start}r{end}a '{start}q{end}' z{tail}",
        "quoted start": f"{start}r '{start}' q{end}a{tail}",
        "blank lines": f"{start}\nr\n{end}\n\na\n{tail}",
        "no answer": f"{start}r{end}",
        "mentions a call": f"{start}r <tool_call> q{end}a{tail}",
    }


def write_tokenizer(folder: Path, *, template: bool = True) -> Model:
    """Write a byte-level tokeniser without merges, in which each mark is one special token, as a model's directory."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    entries = [*alphabet, "Ġ</", "</", "think"]  # the last three because olmo3 looks them up
    inner = Tokenizer(models.BPE(vocab={entry: place for place, entry in enumerate(entries)}, merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    inner.decoder = decoders.ByteLevel()
    inner.add_tokens([AddedToken(mark, special=True, normalized=False) for mark in dict.fromkeys(MARKS)])
    PreTrainedTokenizerFast(tokenizer_object=inner).save_pretrained(folder)
    if template:
        file = folder / "tokenizer_config.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), "response_template": TEMPLATE}))
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", "architectures": ["LlamaForCausalLM"]}))
    return Model("marks", str(folder), None, None, None, None)


@cache
def tokenizer(folder: str) -> Any:
    """The tokeniser in a directory, as vLLM's server loads it."""
    from vllm.tokenizers import get_tokenizer

    return get_tokenizer(folder)


def served(name: str, text: str, folder: str, **template: Any) -> tuple[str | None, str | None]:
    """Reasoning and content that vLLM's server makes of a whole completion with --reasoning-parser NAME. `template` are
    arguments of the chat template."""
    from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
    from vllm.parser.parser_manager import ParserManager

    cls = ParserManager.get_parser(reasoning_parser_name=name, tokenizer=tokenizer(folder))
    assert cls is not None
    parser: Any = cls(tokenizer(folder), None, chat_template_kwargs=template, model_config=None)
    request = ChatCompletionRequest(messages=[{"role": "user", "content": "q"}], model="m", chat_template_kwargs=template or None)
    ids = tokenizer(folder).encode(text, add_special_tokens=False)
    reasoning, content, _ = parser.parse(text, request, model_output_token_ids=ids)
    return reasoning, content
