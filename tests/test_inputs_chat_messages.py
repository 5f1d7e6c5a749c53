"""Conversations in every form that people have them become chat messages; what cannot be carried is refused with its reason."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.sample import Message
from thresher.inputs.chat_messages import (
    LISTS,
    ROLES,
    RefusedError,
    last_answer,
    read_messages,
    require_user,
    short,
    simple_calls,
    without_nulls,
)
from thresher.inputs.json_values import ordered_json

ASKED = Message("user", "What is the weather in Lima?")
CALL = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": {"city": "Lima"}}}
CALLED = Message("assistant", "", tool_calls=ordered_json([CALL]))
ANONYMOUS = Message("assistant", "", tool_calls=ordered_json([{name: CALL[name] for name in ("type", "function")}]))
RESULT = Message("tool", '{"sky":"clear"}', tool_call_id="c1", name="weather")
ANSWERED = Message("assistant", "It is clear.")

OPENAI = [
    {"role": "user", "content": ASKED.content},
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "content": RESULT.content, "tool_call_id": "c1", "name": "weather"},
    {"role": "assistant", "content": "It is clear."},
]
SHAREGPT = [
    {"from": "system", "value": "Be brief."},
    {"from": "human", "value": ASKED.content},
    {"from": "function_call", "value": '{"name": "weather", "arguments": {"city": "Lima"}}'},
    {"from": "observation", "value": '{"sky":"clear"}'},
    {"from": "gpt", "value": "It is clear."},
]
BRIEF = Message("system", "Be brief.")
OBSERVED = Message("tool", '{"sky":"clear"}')


def called_by(call: Any, **further: Any) -> list[dict[str, Any]]:
    return [{"role": "assistant", "content": "", "tool_calls": call, **further}]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("Hi", [Message("user", "Hi")]),
        ("[1, 2] sorted?", [Message("user", "[1, 2] sorted?")]),
        ('{"a": 1}', [Message("user", '{"a": 1}')]),
        ([{"role": "user", "content": "Hi"}], [Message("user", "Hi")]),
        (
            [{"role": "User", "content": "Hi"}, {"role": "model", "content": "Ho"}],
            [Message("user", "Hi"), Message("assistant", "Ho")],
        ),
        (OPENAI, [ASKED, CALLED, RESULT, ANSWERED]),
        (json.dumps(OPENAI), [ASKED, CALLED, RESULT, ANSWERED]),
        ({"messages": OPENAI}, [ASKED, CALLED, RESULT, ANSWERED]),
        (json.dumps({"conversations": SHAREGPT}), [BRIEF, ASKED, ANONYMOUS, OBSERVED, ANSWERED]),
        (SHAREGPT, [BRIEF, ASKED, ANONYMOUS, OBSERVED, ANSWERED]),
        ({"from": ["human", "gpt"], "value": ["Hi", "Ho"]}, [Message("user", "Hi"), Message("assistant", "Ho")]),
        ({"role": "user", "content": "Hi"}, [Message("user", "Hi")]),
        (
            [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "input_text", "text": "b"}, "c"]}],
            [Message("user", "a\nb\nc")],
        ),
        ([{"role": "user", "content": [{"type": "text", "text": "a", "image_url": None}]}], [Message("user", "a")]),
        ([{"role": "system", "content": ""}, {"role": "user", "content": "Hi"}], [Message("system", ""), Message("user", "Hi")]),
        ([{"role": "developer", "content": "x"}], [Message("developer", "x")]),
        (
            [{"role": "user", "content": "Hi", "name": "Ann", "images": [], "tool_calls": None}],
            [Message("user", "Hi", name="Ann")],
        ),
        (called_by([CALL]), [CALLED]),
        (called_by(json.dumps([CALL])), [CALLED]),
        (called_by([CALL | {"function": {"name": "weather", "arguments": '{"city": "Lima"}'}}]), [CALLED]),
        (called_by([{"name": "weather", "arguments": {"city": "Lima"}}]), [ANONYMOUS]),
        (called_by([{"name": "weather", "parameters": {"city": "Lima"}}]), [ANONYMOUS]),
        (called_by([json.dumps({"name": "weather", "arguments": {"city": "Lima"}})]), [ANONYMOUS]),
        (called_by(None, function_call={"name": "weather", "arguments": '{"city": "Lima"}'}), [ANONYMOUS]),
        (
            called_by([{"name": "now", "arguments": ""}]),
            [Message("assistant", "", tool_calls='[{"type":"function","function":{"name":"now","arguments":{}}}]')],
        ),
        (
            [{"role": "function", "name": "weather", "content": {"sky": "clear"}}],
            [Message("tool", '{"sky":"clear"}', name="weather")],
        ),
        ([{"role": "tool", "content": [1, 2]}], [Message("tool", "[1,2]")]),
        ([{"role": "tool", "content": ""}], [Message("tool", "")]),
        *(
            ([{"role": "assistant", "content": "4", name: "2+2"}], [Message("assistant", "4", "2+2")])
            for name in ("reasoning_content", "reasoning", "thinking")
        ),
        (
            [{"role": "assistant", "content": [{"type": "thinking", "thinking": "2+2"}, {"type": "text", "text": "4"}]}],
            [Message("assistant", "4", "2+2")],
        ),
        (
            [{"role": "assistant", "content": "4", "reasoning": [{"type": "text", "text": "2+2"}]}],
            [Message("assistant", "4", "2+2")],
        ),
        ([{"role": "assistant", "content": "<think>a</think>4"}], [Message("assistant", "<think>a</think>4")]),
    ],
)
def test_every_form_becomes_messages(value: Any, expected: list[Message]) -> None:
    """Roles by any of their names, content as parts, calls as text or objects, reasoning under each of its keys."""
    assert list(read_messages(value, "x")) == expected


IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}


@pytest.mark.parametrize(
    ("value", "reason", "message"),
    [
        ([{"role": "user", "content": [{"type": "text", "text": "a"}, IMAGE]}], "an image", "turn 0: an image cannot be carried"),
        ([{"role": "user", "content": [{"type": "image"}]}], "an image", "an image cannot be carried; only text can"),
        ([{"role": "user", "content": [{"type": "input_audio", "input_audio": {}}]}], "audio", "audio cannot be carried"),
        ([{"role": "user", "content": [{"type": "tool_use", "id": "1"}]}], "a part of type tool_use", "a part of type tool_use"),
        ([{"role": "user", "content": "<image>", "images": ["a.png"]}], "an image", "images of a message cannot be carried"),
        ([{"role": "user", "content": "a", "documents": [{"text": "b"}]}], "documents", "documents of a message"),
        ([{"role": "narrator", "content": "a"}], "unknown role narrator", "unknown role 'narrator'; wanted system, developer"),
        ([{"role": "asistant", "content": "a"}], "unknown role asistant", "did you mean assistant?"),
        ([{"content": "a"}], "no role", "a message without a role: it has content"),
        ([{"role": "user", "content": " "}], "empty content", "the turn of the user is empty"),
        ([{"role": "user"}], "empty content", "the turn of the user is empty"),
        ([{"role": "assistant", "content": ""}], "empty content", "the turn of the assistant is empty"),
        ([{"role": "user", "content": 3}], "content that is no text", "wanted text or a list of text parts; found 3"),
        ([{"role": "user", "content": "\ud800"}], "not text", r"x: turn 0: \ud800 is half of a surrogate pair"),
        ([{"role": "user", "content": "a", "tool_calls": [CALL]}], "a call of a tool of the user", "only the assistant has it"),
        ([{"role": "user", "content": "a", "thinking": "b"}], "reasoning of the user", "only the assistant has it"),
        (called_by([{"name": "f", "arguments": "{"}]), "a bad tool call", "tool call 0: arguments that are not JSON"),
        (called_by([{"name": "f", "arguments": [1]}]), "a bad tool call", "wanted an object of arguments; found [1]"),
        (called_by([{"arguments": {}}]), "a bad tool call", 'wanted a name and arguments; found {"arguments": {}}'),
        (called_by("{"), "a bad tool call", "a tool call that is not JSON"),
        ([{"from": "function_call", "value": "weather()"}], "a bad tool call", "a tool call that is not JSON"),
        (str(OPENAI), "messages as a text that is not JSON", "write the list itself, or its JSON text"),
        (json.dumps(OPENAI)[:-3], "messages as a text that is not JSON", "write the list itself, or its JSON text"),
        ([], "no messages", "wanted a list of messages"),
        (None, "no messages", "wanted a list of messages with role and content (or from and value); found null"),
        ({"question": "a"}, "no messages", "wanted a list of messages"),
        (["a"], "no messages", 'wanted a message with role and content; found "a"'),
    ],
)
def test_what_cannot_be_carried_is_refused(value: Any, reason: str, message: str) -> None:
    """The message names place and turn; the reason is the same for all rows of a kind."""
    with pytest.raises(RefusedError) as error:
        read_messages(value, "x")

    assert error.value.reason == reason
    assert message in str(error.value)
    assert str(error.value).startswith("x: ")


def test_keys_that_messages_lack_are_named() -> None:
    """An id or a time changes nothing that a model reads, so the turn is kept, and the caller can say what it left out."""
    further: set[str] = set()
    turn = {"role": "user", "content": "Hi", "id": 3, "weight": 0.0, "timestamp": None, "partial": False}

    assert read_messages([turn], "x", further) == (Message("user", "Hi"),)
    assert further == {"id", "weight"}


def test_a_conversation_needs_a_turn_of_the_user() -> None:
    require_user([BRIEF, ASKED], "x")
    with pytest.raises(RefusedError, match=r"^x: no turn of the user; found system, assistant$"):
        require_user([BRIEF, ANSWERED], "x")


def test_the_last_answer_is_the_assistants() -> None:
    assert last_answer([ASKED, CALLED, RESULT, ANSWERED, ASKED]) == 3
    assert last_answer([ASKED]) is None
    assert simple_calls(CALLED.tool_calls or "") == [{"name": "weather", "arguments": {"city": "Lima"}}]


def test_null_keys_are_left_out_at_any_depth() -> None:
    """But not nulls in lists, as in an enum."""
    assert without_nulls({"a": None, "b": [{"c": None, "d": [None]}]}) == {"b": [{"d": [None]}]}
    assert short("x" * 100) == '"' + "x" * 56 + "..."


plain = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(str.strip)
turn = st.one_of(
    st.builds(Message, st.sampled_from(["user", "system", "tool"]), plain),
    st.builds(Message, st.just("assistant"), plain, st.none() | plain),
    st.builds(
        lambda content, **function: Message(
            "assistant", content, tool_calls=ordered_json([{"type": "function", "function": function}])
        ),
        st.just("") | plain, name=plain, arguments=st.dictionaries(plain, st.integers() | plain | st.none()),
    ),
)  # fmt: skip


@given(st.lists(turn, min_size=1))
def test_messages_read_back_as_they_were_written(messages: list[Message]) -> None:
    """As a list, as JSON text, under each name of a list, and with the names of ShareGPT."""
    chat = [message.as_chat() for message in messages]
    names = {"user": "human", "assistant": "gpt"}
    renamed = [
        {("from" if key == "role" else "value" if key == "content" else key): names.get(value, value) if key == "role" else value
         for key, value in message.items()}
        for message in chat
    ]  # fmt: skip

    assert list(read_messages(chat, "x")) == messages
    assert list(read_messages(json.dumps(chat), "x")) == messages
    assert list(read_messages({LISTS[1]: renamed}, "x")) == messages


@given(st.sampled_from(sorted(ROLES)), plain)
def test_every_name_of_a_role_is_one_of_five(name: str, text: str) -> None:
    if name not in ("function_call", "tool_call"):
        (message,) = read_messages([{"role": name.upper(), "content": text}], "x")

        assert message.role in ("system", "developer", "user", "assistant", "tool")
