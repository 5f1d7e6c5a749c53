"""Conversations become prompts: cut where the recipe says, with its own system message and worked examples in front."""

from typing import Any

import pytest

from schemas.prompt_sets import PromptSet
from schemas.sample import Message
from thresher.inputs.chat_messages import RefusedError
from thresher.inputs.conversations import conversation, tools_and_arguments, with_front

ROLES = {"s": "system", "u": "user", "a": "assistant", "t": "tool"}


def chat(letters: str) -> list[dict[str, str]]:
    return [{"role": ROLES[letter], "content": f"{letter}{number}"} for number, letter in enumerate(letters)]


def set_of(**changes: Any) -> PromptSet:
    source = {"kind": "jsonl", "path": "x.jsonl"}
    return PromptSet.model_validate({"family": "chats", "source": source, "messages": "chat", **changes})


@pytest.mark.parametrize(
    ("until", "letters", "kept", "answer"),
    [
        ("all", "sua", "sua", None),
        ("last_user", "sua", "su", "a2"),
        ("last_user", "suauaa", "suau", "a5"),
        ("last_user", "uata", "u", "a3"),
        ("last_user", "uau", "uau", None),
        ("before_answer", "uata", "uat", "a3"),
        ("before_answer", "uauat", "uau", "a3"),
        ("before_answer", "su", "su", None),
    ],
)
def test_until_cuts_the_conversation(until: str, letters: str, kept: str, answer: str | None) -> None:
    """What is cut off holds the answer, if there is one."""
    turns, last = conversation(set_of(until=until), {"chat": chat(letters)}, "x", set())

    assert [turn.content for turn in turns] == [f"{letter}{number}" for number, letter in enumerate(kept)]
    assert (last.content if last else None) == answer


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"chat": chat("sa")}, "no turn of the user"),
        ({"chat": chat("s"), "until": "last_user"}, "no turn of the user"),
        ({}, "no messages"),
        ({"chat": [{"role": "user", "content": "<image>\nWhat is this?"}], "image": "a.png"}, "a mark for the column image"),
    ],
    ids=["no user", "only system", "no field", "image column"],
)
def test_rows_that_are_no_prompt_are_refused(row: dict[str, Any], reason: str) -> None:
    with pytest.raises(RefusedError) as error:
        conversation(set_of(until=row.pop("until", "all")), row, "x.jsonl:1", set())

    assert (error.value.reason, str(error.value).startswith("x.jsonl:1: chat: ")) == (reason, True)


def test_the_mark_of_an_image_is_text_where_no_image_is() -> None:
    """HTML may be asked about."""
    turn = {"role": "user", "content": "<image> is no tag of HTML"}

    assert conversation(set_of(), {"chat": [turn], "images": []}, "x", set())[0] == (Message("user", turn["content"]),)


def test_the_recipes_front_comes_first() -> None:
    """Worked examples stand after a system message of the conversation, which is not replaced."""
    shots = (Message("user", "1"), Message("assistant", "2"))
    own, asked = Message("system", "Own."), (Message("user", "?"),)

    assert with_front("Be brief.", shots, asked, "x") == (Message("system", "Be brief."), *shots, *asked)
    assert with_front(" ", shots, (own, *asked), "x") == (own, *shots, *asked)
    assert with_front("", (), (own, *asked), "x") == (own, *asked)
    with pytest.raises(RefusedError, match="has a system message, and so has the recipe") as error:
        with_front("Be brief.", shots, (own, *asked), "x")
    assert error.value.reason == "a system message of its own"


def test_tools_and_arguments_come_from_the_row_or_the_recipe() -> None:
    tool = {"name": "now"}
    row = {"chat": chat("u"), "functions": [tool], "settings": {"enable_thinking": False}}
    read = '[{"type":"function","function":{"name":"now"}}]'

    assert tools_and_arguments(set_of(), row, "x") == (None, None)
    assert tools_and_arguments(set_of(tools="functions", chat_template_kwargs="settings"), row, "x") == (
        read,
        '{"enable_thinking":false}',
    )
    assert tools_and_arguments(set_of(tools="other", chat_template_kwargs={"a": 1}), row, "x") == (None, '{"a":1}')


def test_null_keys_of_arrow_are_left_out() -> None:
    """A struct of Arrow has the keys of every row; in JSON a null is what the user wrote."""
    tool = {"name": "now", "parameters": {"type": "object", "properties": {"zone": {"type": "string", "enum": None}}}}
    parquet = set_of(tools="tools", source={"kind": "parquet", "path": "x.parquet"})

    assert "enum" not in (tools_and_arguments(parquet, {"tools": [tool]}, "x")[0] or "")
    with pytest.raises(RefusedError, match="None is not of type 'array'"):
        tools_and_arguments(set_of(tools="tools"), {"tools": [tool]}, "x")
