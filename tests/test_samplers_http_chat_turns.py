"""What a server of the chat API gets for tool calls, their results and reasoning."""

import json
from pathlib import Path

import pytest

from helpers.tool_template import with_tools
from schemas.engines import HttpEngine
from schemas.prompt_sets import PromptSet
from schemas.sample import Message, to_json
from thresher.inputs.chat_messages import read_messages
from thresher.inputs.prompts import prompts
from thresher.samplers.http.chat_turns import chat_turns
from thresher.samplers.http.dialects import VLLM
from thresher.samplers.http.protocol import Question, Service, request_body
from thresher.samplers.http.refusals import Form
from thresher.samplers.sampler import NEUTRAL, Group
from thresher.samplers.vllm_process import Tokeniser


def call(name: str, identity: str | None = None, **arguments: str) -> str:
    identified = {} if identity is None else {"id": identity}
    return to_json([{**identified, "type": "function", "function": {"name": name, "arguments": arguments}}])


def test_arguments_are_text_and_ids_are_kept() -> None:
    """The API wants text, although chat templates want objects; vLLM's server turns it back."""
    turns = chat_turns(
        [
            Message("user", "Weather?"),
            Message("assistant", "", "Ask.", call("weather", "c7", city="Lima")),
            Message("tool", "clear", tool_call_id="c7", name="weather"),
        ]
    )

    assert turns == [
        {"role": "user", "content": "Weather?"},
        {
            "role": "assistant",
            "content": "",
            "reasoning_content": "Ask.",
            "reasoning": "Ask.",
            "tool_calls": [{"id": "c7", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Lima"}'}}],
        },
        {"role": "tool", "content": "clear", "tool_call_id": "c7", "name": "weather"},
    ]


def test_calls_without_ids_are_numbered_and_results_follow_them() -> None:
    """Two calls at once, then another; the last result has no call."""
    two = to_json([*json.loads(call("a")), *json.loads(call("b"))])
    messages = [Message("assistant", "", tool_calls=two), Message("tool", "1"), Message("tool", "2")]
    turns = chat_turns([*messages, Message("assistant", "", tool_calls=call("c")), Message("tool", "3"), Message("tool", "4")])

    assert [[called["id"] for called in turn.get("tool_calls", ())] for turn in turns if turn["role"] == "assistant"] == [
        ["call_0", "call_1"],
        ["call_2"],
    ]
    assert [turn["tool_call_id"] for turn in turns if turn["role"] == "tool"] == ["call_0", "call_1", "call_2", "call_3"]


TOOLS = [{"type": "function", "function": {"name": "weather", "description": "W.", "parameters": {}}}]
CHAT = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Weather in Lima?"},
    {
        "role": "assistant",
        "content": None,
        "thinking": "I look it up.",
        "tool_calls": [{"function": {"name": "weather", "arguments": '{"zone": "z", "city": "Lima"}'}}],
    },
    {"role": "tool", "content": [{"type": "text", "text": "clear"}]},
]
RENDERED = """\
<|im_start|>system
Be brief.

<tools>{"type": "function", "function": {"name": "weather", "description": "W.", "parameters": {}}}</tools><|im_end|>
<|im_start|>user
Weather in Lima?<|im_end|>
<|im_start|>assistant
<think>
I look it up.
</think>

<tool_call>{"name": "weather", "arguments": {"zone": "z", "city": "Lima"}}</tool_call><|im_end|>
<|im_start|>user
<tool_response>clear</tool_response><|im_end|>
<|im_start|>assistant
<think>

</think>

"""


@pytest.mark.slow
def test_a_real_template_shows_tools_and_calls_in_both_engines(tmp_path: Path) -> None:
    """What the tokeniser of this process renders, and what vLLM's own server makes of the request, are one text."""
    from vllm.config import ModelConfig
    from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
    from vllm.renderers.chat_utils import parse_chat_messages

    row = {"chat": CHAT, "tools": TOOLS}
    (tmp_path / "x.jsonl").write_text(json.dumps(row))
    settings = {"messages": "chat", "tools": "tools", "chat_template_kwargs": {"enable_thinking": False}, "reference": None}
    source = {"kind": "jsonl", "path": "x.jsonl"}
    (prompt,) = prompts(PromptSet.model_validate({"family": "weather", "source": source, **settings}), tmp_path)
    tokeniser = Tokeniser(with_tools(tmp_path / "model"), "auto")

    assert tokeniser.text(prompt.messages, to_continue=True, tools=prompt.tools, template=prompt.template) == RENDERED

    group = Group(0, prompt.messages, 1, {**NEUTRAL, "max_tokens": 5, "stop": []}, tools=prompt.tools, template=prompt.template)
    service = Service(HttpEngine(kind="openai_http", base_urls=("http://127.0.0.1:1/v1",)), "small", seeded=False)
    body = json.loads(json.dumps(request_body(Question(group, 0, 1), service, Form(VLLM, logprobs=False, top_logprobs=0))))
    request = ChatCompletionRequest.model_validate(body)
    conversation, *_ = parse_chat_messages(request.messages, ModelConfig(str(tmp_path / "model")), "string")
    tools = json.dumps([tool.model_dump() for tool in request.tools])
    turns = read_messages([dict(turn) for turn in conversation], "the server's")

    assert [turn["role"] for turn in conversation] == ["system", "user", "assistant", "tool"]
    assert conversation[2]["tool_calls"][0]["function"]["arguments"] == {"zone": "z", "city": "Lima"}
    template = json.dumps(request.chat_template_kwargs)
    assert tokeniser.text(turns, to_continue=True, tools=tools, template=template) == RENDERED
