"""A user's row becomes a row of the pool: conversations, tool turns and reasoning included."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from filters.reasoning import take_apart
from schemas.sample import Message
from thresher import ids
from thresher.inputs.chat_messages import simple_calls
from thresher.inputs.files.named_files import named_files
from thresher.inputs.sources import NOT_READ
from thresher.pool.imported_rows import pool_row_of, without_nulls_in
from thresher.pool.ingest import ingest
from thresher.pool.store import Store

ASKED = {"role": "user", "content": "Weather?"}
CALL = {"type": "function", "function": {"name": "weather", "arguments": {"city": "Lima"}}}
CALLS = {"role": "assistant", "content": "", "tool_calls": [CALL]}
RESULT = {"role": "tool", "content": "clear"}
ANSWER = {"role": "assistant", "content": "It is clear."}
THOUGHT = "<think>\nb\n</think>\n\n"
TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}


def row_of(**row: Any) -> dict[str, Any]:
    pool_row = pool_row_of("x:1", {"line": 1}, row, b"")
    assert pool_row["unreadable"] is None, pool_row["unreadable"]
    return pool_row


@pytest.mark.parametrize("name", ["messages", "conversations", "conversation"])
def test_the_last_answer_of_a_conversation_is_the_completion(name: str) -> None:
    """Turns of tools before it are part of what was asked; what comes after it is left out."""
    row = row_of(
        **{name: [ASKED, CALLS, RESULT, ANSWER, ASKED]}, tools=[TOOL], chat_template_kwargs={"a": 1}, reference="clear", n=1
    )
    messages = [
        Message("user", "Weather?"),
        Message("assistant", "", tool_calls=json.dumps([CALL], separators=(",", ":"))),
    ]
    messages.append(Message("tool", "clear"))

    assert [Message(**message) for message in row["messages"]] == messages
    assert (row["completion"], row.get("parsed_by"), json.loads(row["metadata"])) == ("It is clear.", None, {"n": 1})
    assert (json.loads(row["tools"]), row["template"]) == ([TOOL], '{"a":1}')
    assert row["prompt_id"] == ids.prompt_id(messages, "clear", row["tools"], row["template"])


def test_prompt_and_completion_count_where_both_are_there() -> None:
    """The conversation is then metadata, as any other column; with a prompt alone it is the other way round."""
    both = row_of(prompt="a", completion="b", messages=[ASKED, ANSWER])
    alone = row_of(prompt="a", completion=None, messages=[ASKED, ANSWER])

    assert (both["completion"], json.loads(both["metadata"])) == ("b", {"messages": [ASKED, ANSWER]})
    assert (alone["completion"], json.loads(alone["metadata"])) == ("It is clear.", {"prompt": "a", "completion": None})


def test_earlier_turns_of_a_completion_belong_to_the_prompt() -> None:
    """They were there when the answer was drawn."""
    row = row_of(prompt=[ASKED], completion=[CALLS, RESULT, ANSWER])

    assert [message["role"] for message in row["messages"]] == ["user", "assistant", "tool"]
    assert row["completion"] == "It is clear."


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"prompt": "a", "completion": [{"type": "text", "text": "b"}]}, ("a", "b")),
        ({"prompt": "a", "completion": {"type": "text", "text": "b"}}, ("a", "b")),
        ({"prompt": [{"type": "text", "text": "a"}], "completion": [{"type": "thinking", "thinking": "b"}]}, ("a", THOUGHT)),
        ({"prompt": "a", "completion": [{"role": "assistant", "content": [{"type": "text", "text": "b"}]}]}, ("a", "b")),
        ({"prompt": "a", "completion": {"role": "assistant", "content": "b"}}, ("a", "b")),
    ],
    ids=["completion", "one part", "prompt and thoughts", "of a message", "one message"],
)
def test_parts_of_text_are_text(row: dict[str, Any], said: tuple[str, str]) -> None:
    """As OpenAI writes them, alone or in a message."""
    read = row_of(**row)

    assert (read["messages"][0]["content"], read["completion"]) == said


@pytest.mark.parametrize(
    ("completion", "reason"),
    [
        ([{"type": "image_url", "image_url": {"url": "x"}}], "an image cannot be carried"),
        ([{"type": "text", "text": "b"}, {"type": "refusal", "refusal": "b"}], "a part of type refusal cannot be carried"),
        ([{"type": "text"}], "a part of type text cannot be carried"),
        (["a", "b"], "wanted a message with role and content"),
        ([], "wanted a list of messages"),
        ({}, "wanted a list of messages"),
    ],
)
def test_other_parts_are_unreadable_with_their_reason(completion: Any, reason: str) -> None:
    read = pool_row_of("x:1", {"line": 1}, {"prompt": "a", "completion": completion}, b"")

    assert read["unreadable"].startswith("x:1: bad completion: ")
    assert reason in read["unreadable"]


@pytest.mark.parametrize("key", ["reasoning_content", "reasoning", "thinking"])
def test_reasoning_comes_apart(key: str) -> None:
    """The completion is the text that most templates write, and comes apart to the same again."""
    row = row_of(prompt="1+1?", completion=[{"role": "assistant", "content": "2", key: "One and one."}])

    assert (row["reasoning"], row["answer"], row["parsed_by"], row["tool_calls"]) == ("One and one.", "2", "messages", None)
    assert row["completion"] == "<think>\nOne and one.\n</think>\n\n2"
    again = take_apart(pa.array([row["completion"]]))
    assert (again.reasoning.to_pylist(), again.answer.to_pylist()) == (["One and one."], ["2"])


def test_calls_of_a_completion_are_kept() -> None:
    row = row_of(messages=[ASKED, CALLS | {"reasoning": "I look."}])

    assert (
        json.loads(row["tool_calls"]) == simple_calls(json.dumps([CALL])) == [{"name": "weather", "arguments": {"city": "Lima"}}]
    )
    assert (row["reasoning"], row["answer"], row["parsed_by"]) == ("I look.", "", "messages")
    assert row["completion"].startswith("<think>\nI look.\n</think>\n\n<tool_call>\n{")


def test_a_row_without_nulls_keeps_other_columns() -> None:
    row = {"messages": [{"a": None}], "tools": [{"b": None, "c": 1}], "other": {"d": None}, "n": NOT_READ}

    assert without_nulls_in(row) == {"messages": [{}], "tools": [{"c": 1}], "other": {"d": None}, "n": NOT_READ}


def test_a_file_of_conversations_becomes_a_pool(tmp_path: Path) -> None:
    """JSONL and Parquet give the same samples; calls that differ make samples that differ."""
    other = {
        "role": "assistant",
        "content": "",
        "tool_calls": [{"type": "function", "function": {"name": "weather", "arguments": {"city": "Oslo"}}}],
    }
    thought = {"role": "assistant", "content": "Rain.", "reasoning_content": "Hm."}
    rows = [{"messages": [ASKED, turn], "tools": [TOOL]} for turn in (CALLS, other, CALLS, thought)]
    (tmp_path / "x.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    image = pa.array([{"bytes": b"?", "path": None}] * 4, pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
    pq.write_table(pa.Table.from_pylist(rows).append_column("image", image), tmp_path / "x.parquet")
    tables = []
    for name in ("x.jsonl", "x.parquet"):
        store = Store(tmp_path / name.replace(".", "-"))
        assert ingest(named_files(tmp_path / name), store, key="k") == 1
        tables.append(store.read_table("samples/00000"))

    assert tables[0].drop_columns(["metadata"]).equals(tables[1].drop_columns(["metadata"]))
    assert [table["metadata"].unique().to_pylist() for table in tables] == [["{}"]] * 2
    found = tables[0].to_pylist()
    assert [row["unreadable"] for row in found] == [None] * 4
    assert len({row["sample_id"] for row in found}) == 4 > len({row["prompt_id"] for row in found}) == 1
    assert [row["tool_calls"] and json.loads(row["tool_calls"])[0]["arguments"]["city"] for row in found] == [
        "Lima",
        "Oslo",
        "Lima",
        None,
    ]
    assert [(row["answer"], row["reasoning"], row["parsed_by"]) for row in found[2:]] == [
        ("", None, "messages"),
        ("Rain.", "Hm.", "messages"),
    ]
    assert found[3]["completion"] == "<think>\nHm.\n</think>\n\nRain."
