"""Rows become prompts, or an error that names the row, the field and the closest field."""

import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.prompt_sets import PromptSet
from schemas.recipe import Recipe
from schemas.sample import PROMPTS, Message, Prompt
from thresher import ids
from thresher.errors import SourceError
from thresher.inputs.prompts import plan, prompt_table, prompts, prompts_of

ROWS = [{"question": "1+1?", "answer": 2, "level": "easy"}, {"question": "2+2?", "answer": 4, "level": "easy"}]


def prompts_of_set(folder: Path, rows: Any = ROWS, **changes: Any) -> Any:
    """The prompts of a set over these rows."""
    (folder / "x.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = {"kind": "jsonl", "path": "x.jsonl"}
    return list(prompts(PromptSet.model_validate({"family": "sums", "source": source, **changes}), folder))


def test_defaults_ask_the_question_and_keep_the_rest(tmp_path: Path) -> None:
    """The reference is no metadata: a model that reads the metadata must not read the answer."""
    (first, second) = prompts_of_set(tmp_path)

    assert first.messages == (Message("user", "1+1?"),)
    assert (first.reference, first.family) == (2, "sums")
    assert first.metadata == {"question": "1+1?", "level": "easy"}
    assert first.prompt_id == ids.prompt_id(first.messages, 2)
    assert second.prompt_id != first.prompt_id


def test_messages_are_system_then_examples_then_the_question(tmp_path: Path) -> None:
    """System and user message are templates over the same fields; the examples are plain text."""
    shots = [{"user": "0+1? {{ x }}", "assistant": "1"}, {"user": "1+2?", "assistant": "3"}]
    prompt = prompts_of_set(tmp_path, system="Level: {{ level }}.", few_shot=shots, template="{{ question }}\n")[0]

    assert [(turn.role, turn.content) for turn in prompt.messages] == [
        ("system", "Level: easy."),
        ("user", "0+1? {{ x }}"),
        ("assistant", "1"),
        ("user", "1+2?"),
        ("assistant", "3"),
        ("user", "1+1?\n"),
    ]


def test_system_message_that_renders_to_nothing_is_left_out(tmp_path: Path) -> None:
    """A template can thus give a system message to some rows only."""
    planned = prompts_of_set(tmp_path, system="{% if answer > 2 %}Be careful.{% endif %}")

    assert [prompt.messages[0].role for prompt in planned] == ["user", "system"]


def test_reference_template_makes_text_and_keeps_the_answer_field(tmp_path: Path) -> None:
    """The field named by `reference` is then metadata like any other."""
    prompt = prompts_of_set(tmp_path, reference_template="{{ answer + 1 }}")[0]

    assert prompt.reference == "3"
    assert prompt.metadata["answer"] == 2


def test_several_fields_make_one_reference(tmp_path: Path) -> None:
    """As for tests of programs. A row may lack a field, but not all rows may, and the fields are no metadata."""
    rows = [{"question": "f?", "test": "a", "entry_point": "f"}, {"question": "g?", "test": "b"}]
    planned = prompts_of_set(tmp_path, rows, reference=["test", "entry_point"])

    assert [prompt.reference for prompt in planned] == [{"test": "a", "entry_point": "f"}, {"test": "b"}]
    assert planned[0].metadata == {"question": "f?"}
    with pytest.raises(SourceError, match="no row has the field 'entry_pint'; did you mean entry_point"):
        prompts_of_set(tmp_path, rows, reference=["test", "entry_pint"])


def test_metadata_may_be_chosen_and_other_fields_may_hold_anything(tmp_path: Path) -> None:
    """NaN in a field that is not used is no error. In metadata it is a text, at any depth; in a reference or a template it is an
    error."""
    rows = [{**row, "junk": math.nan} for row in ROWS]

    assert prompts_of_set(tmp_path, rows, metadata=["level", "answer"])[0].metadata == {"level": "easy", "answer": 2}
    rows = [{**row, "junk": [{"x": math.nan}, -math.inf]} for row in ROWS]
    assert prompts_of_set(tmp_path, rows)[0].metadata["junk"] == [{"x": "NaN"}, "-Infinity"]
    for use in ({"reference": "junk"}, {"template": "{{ junk }}"}, {"system": "{{ junk }}", "metadata": ["junk"]}):
        with pytest.raises(SourceError, match=r"x.jsonl:1: junk: nan is not a number in JSON"):
            prompts_of_set(tmp_path, rows, **use)


def test_template_text_is_not_escaped_for_html(tmp_path: Path) -> None:
    """Neither values nor tojson."""
    rows = [{"question": "a < b & 'é'", "answer": ["<é>"]}]
    prompt = prompts_of_set(tmp_path, rows, template="{{ question }} {{ answer | tojson }}")[0]

    assert prompt.messages[0].content == "a < b & 'é' [\"<é>\"]"


def test_single_rows_may_lack_the_reference(tmp_path: Path) -> None:
    """They have none, and so has a row whose answer is null."""
    rows = [ROWS[0], {"question": "?"}, {"question": "??", "answer": None}]

    assert [prompt.reference for prompt in prompts_of_set(tmp_path, rows)] == [2, None, None]


def test_reference_that_no_row_has_names_the_nearest(tmp_path: Path) -> None:
    """Unless the set says that it has none."""
    with pytest.raises(SourceError) as error:
        prompts_of_set(tmp_path, [{"question": "?", "anwser": 1}])

    assert str(error.value) == (
        "prompts: family sums: reference: no row has the field 'answer'; did you mean anwser?; "
        "the rows have question, anwser; name one of these, or set reference: null"
    )
    assert prompts_of_set(tmp_path, [{"question": "?"}], reference=None)[0].reference is None


def test_limit_takes_the_first_rows_and_reads_no_further(tmp_path: Path) -> None:
    """A bad row behind the limit is not seen."""
    assert [prompt.reference for prompt in prompts_of_set(tmp_path, [*ROWS, {"nothing": 1}], limit=2)] == [2, 4]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"template": "{{ qestion }}"},
            "x.jsonl:1: template: 'qestion' is undefined; did you mean question?; the row has question, answer, level",
        ),
        ({"system": "{{ nothing_like_it }}"}, "x.jsonl:1: system: 'nothing_like_it' is undefined; the row has"),
        ({"template": "{{ level.depth }}"}, "x.jsonl:1: template: 'str object' has no attribute 'depth'; the row has"),
        ({"reference_template": "{{ lvl }}"}, "x.jsonl:1: reference_template: 'lvl' is undefined; did you mean level?"),
        ({"template": "{{ 1 // 0 }}"}, "x.jsonl:1: template: ZeroDivisionError: "),
        ({"template": "{{ answer.__class__ }}"}, "x.jsonl:1: template: SecurityError: access to attribute '__class__'"),
        ({"template": "{% include 'a' %}"}, "x.jsonl:1: template: TypeError: no loader"),
        ({"template": " {# #}\n"}, "x.jsonl:1: template: renders to an empty message; the row has question"),
        ({"template": "{{ none }}"}, "x.jsonl:1: template: an expression is null; say what to write instead"),
        ({"template": "a\n{% if %}"}, "template:2: not a valid Jinja template: Expected an expression"),
        ({"system": "{{ x | random }}"}, "system:1: not a valid Jinja template: No filter named 'random'"),
        ({"metadata": ["levl"]}, "x.jsonl:1: metadata: no field 'levl'; did you mean level?; the row has question"),
        ({"template": "\ud800"}, "x.jsonl:1: template: \\ud800 is half of a surrogate pair"),
        ({"few_shot": [{"user": "a", "assistant": "\ud800"}]}, "few_shot 0: assistant: \\ud800 is half of"),
        ({"source": {"kind": "jsonl", "path": "y.jsonl"}}, "y.jsonl: no such file; looked for"),
        ({"source": {"kind": "jsonl", "path": "empty.jsonl"}}, "empty.jsonl holds no rows"),
    ],
    ids=[
        "field", "system field", "attribute", "reference field", "arithmetic", "sandbox", "include", "empty", "null",
        "syntax", "random", "metadata", "surrogate", "shot surrogate", "missing file", "no rows",
    ],
)  # fmt: skip
def test_faults_name_the_family_the_row_and_the_fields(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    """One message for each way a set can fail."""
    (tmp_path / "empty.jsonl").touch()

    with pytest.raises(SourceError) as error:
        prompts_of_set(tmp_path, **changes)
    assert str(error.value).startswith(f"prompts: family sums: {message}")


def test_null_field_is_an_error_unless_the_template_has_a_default(tmp_path: Path) -> None:
    """Jinja would write the word None into the prompt."""
    rows = [{"question": None, "answer": 1}]

    with pytest.raises(SourceError, match="an expression is null"):
        prompts_of_set(tmp_path, rows)
    assert prompts_of_set(tmp_path, rows, template="{{ question or 'unknown' }}")[0].messages[0].content == "unknown"


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("{{ tags }}", "an expression is a list, which Python would spell ['a', \"it's\"]; write {{ field | tojson }}"),
        ("Of {{ facts }}", "an expression is an object, which Python would spell {'x': 10}; write {{ field | tojson }}"),
        ("{{ facts.values() }}", "an expression is a dict_values, which"),
        ("{{ tags | map('upper') }}", "an expression is a generator, which Python would spell <generator object"),
        ("{{ level.upper }}", "an expression is a builtin_function_or_method, which"),
        ("{{ 1e308 * facts.x }}", "an expression is inf, which is no number in JSON"),
        ("{{ 'Tags: ' ~ tags }}", "an expression is a list, which Python would spell ['a', \"it's\"]"),
        ("{{ facts | string }}", "an expression is an object, which Python would spell {'x': 10}"),
        ("{{ [tags, tags] | join(', ') }}", "an expression is a list, which"),
        ("{{ [facts] | join(', ', 'y') }}", "'dict object' has no attribute 'y'"),
    ],
    ids=["list", "object", "view", "generator", "method", "infinity", "~", "string", "join", "join by attribute"],
)
def test_a_message_never_holds_what_python_would_spell(tmp_path: Path, template: str, words: str) -> None:
    rows = [{"question": "?", "tags": ["a", "it's"], "facts": {"x": 10}, "level": "easy"}]

    with pytest.raises(SourceError) as error:
        prompts_of_set(tmp_path, rows, template=template, reference=None)
    assert str(error.value).startswith(f"prompts: family sums: x.jsonl:1: template: {words}")
    named = "(the field tags)" if "tags" in template and "map" not in template else ""
    assert f"{named}; the row has question, tags, facts, level" in str(error.value)


def test_lists_and_objects_are_written_as_the_template_says(tmp_path: Path) -> None:
    """As JSON, joined, in parts; and a text that looks like a list of Python's is a text."""
    rows = [{"question": "['a', 'b']", "tags": ["a", "b"], "facts": {"x": 1.5}}]
    template = "{{ question }} {{ tags | tojson }} {{ tags | join('+') }} {{ [facts] | join('', 'x') }} {{ 'n ' ~ 1 ~ tags[0] }}"

    (prompt,) = prompts_of_set(tmp_path, rows, template=template, reference=None)

    assert prompt.messages[0].content == """['a', 'b'] ["a", "b"] a+b 1.5 n 1a"""


def test_a_boolean_is_written_and_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Python spells it True; some prompts want that."""
    rows = [{"question": True}, {"question": True}]

    made = prompts_of_set(tmp_path, rows, reference=None)

    assert [prompt.messages[0].content for prompt in made] == ["True", "True"]
    assert [record.message for record in caplog.records] == [
        "prompts: family sums: a template writes True; for true write {{ field | tojson }}"
    ]


def test_plan_drops_and_counts_repeated_prompts(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The same messages with another reference are another prompt; the same in another family are not."""
    rows = [*ROWS, ROWS[0], {**ROWS[0], "answer": "two"}]
    (tmp_path / "x.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = {"kind": "jsonl", "path": "x.jsonl"}
    sets = [{"family": "a", "source": source}, {"family": "b", "source": source, "limit": 2}]
    recipe = Recipe(name="r", prompts=sets)
    repeated: Counter[str] = Counter()
    planned = list(plan(recipe, tmp_path, repeated=repeated))

    assert [(prompt.family, prompt.reference) for prompt in planned] == [("a", 2), ("a", 4), ("a", "two")]
    assert repeated == {"a": 1, "b": 2}
    assert [record.getMessage() for record in caplog.records] == [
        "prompts: family a: 1 repeated and left out",
        "prompts: family b: 2 repeated and left out",
    ]


TEXTS = st.text(st.characters(exclude_categories=["Cs"]))
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)
PROMPT = st.builds(
    Prompt,
    prompt_id=TEXTS,
    family=TEXTS,
    messages=st.lists(st.builds(Message, TEXTS, TEXTS), max_size=3).map(tuple),
    reference=VALUES,
    metadata=st.dictionaries(TEXTS, VALUES, max_size=3),
)


@settings(max_examples=50)
@given(st.lists(PROMPT, max_size=4))
def test_prompts_survive_their_table(given_prompts: Any) -> None:
    """Any JSON value comes back as it was, and null stays apart from the text null."""
    table = prompt_table(given_prompts)

    assert table.schema.equals(PROMPTS, check_metadata=True)
    assert prompts_of(table) == given_prompts


# -- conversations -------------------------------------------------------------------------------------------------------

TOOL = {
    "type": "function",
    "function": {"name": "add", "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}}},
}
ADD = {"type": "function", "function": {"name": "add", "arguments": {"a": 1}}}
CHAT = [
    {"role": "user", "content": "1+1?"},
    {"role": "assistant", "content": "", "tool_calls": [ADD]},
    {"role": "tool", "content": "2"},
    {"role": "assistant", "content": "It is 2."},
]
CHATS = [{"chat": CHAT, "tools": [TOOL], "settings": {"enable_thinking": False}, "answer": 2}, {"chat": CHAT[:1], "answer": 3}]


def test_conversations_are_taken_as_they_are(tmp_path: Path) -> None:
    """With tools and template arguments, which belong to the id. The conversation is no metadata: it may hold the answer."""
    first, second = prompts_of_set(
        tmp_path, CHATS, messages="chat", until="before_answer", tools="tools", chat_template_kwargs="settings"
    )

    assert [turn.as_chat() for turn in first.messages] == CHAT[:3]
    assert (json.loads(first.tools), first.template) == ([TOOL], '{"enable_thinking":false}')
    assert (first.reference, first.metadata) == (2, {})
    assert first.prompt_id == ids.prompt_id(first.messages, 2, first.tools, first.template)
    assert (second.messages, second.tools, second.template) == ((Message("user", "1+1?"),), None, None)


def test_tools_and_arguments_go_with_templates_too(tmp_path: Path) -> None:
    rows = [{"question": "1+1?", "answer": 2, "tools": [TOOL]}]
    (prompt,) = prompts_of_set(tmp_path, rows, tools="tools", chat_template_kwargs={"enable_thinking": True})

    assert (prompt.messages, json.loads(prompt.tools), prompt.template) == (
        (Message("user", "1+1?"),), [TOOL], '{"enable_thinking":true}'
    )  # fmt: skip
    assert prompt.metadata == {"question": "1+1?"}


def test_the_recipes_turns_stand_in_front_of_conversations(tmp_path: Path) -> None:
    """`system` is a template over the row, the conversation included, so it can leave out rows that have their own."""
    rows = [
        {"c": [{"role": "user", "content": "a"}]},
        {"c": [{"role": "system", "content": "S"}, {"role": "user", "content": "b"}]},
    ]
    system = "{% if c[0].role != 'system' %}Be brief.{% endif %}"
    planned = prompts_of_set(
        tmp_path, rows, messages="c", reference=None, system=system, few_shot=[{"user": "1", "assistant": "2"}]
    )

    assert [[turn.content for turn in prompt.messages] for prompt in planned] == [
        ["Be brief.", "1", "2", "a"],
        ["S", "1", "2", "b"],
    ]


def test_the_answer_that_is_cut_off_may_be_the_reference(tmp_path: Path) -> None:
    """Its text, or its calls; a conversation without an answer has none."""
    settings = {"messages": "chat", "reference_from_messages": True}
    rows = [{"chat": CHAT}, {"chat": CHAT[:2]}, {"chat": CHAT[:1]}]

    found = [prompt.reference for prompt in prompts_of_set(tmp_path, rows, until="before_answer", **settings)]

    assert found == ["It is 2.", [{"name": "add", "arguments": {"a": 1}}], None]


def test_metadata_may_name_the_conversation(tmp_path: Path) -> None:
    assert prompts_of_set(tmp_path, CHATS[1:], messages="chat", metadata=["chat"])[0].metadata == {"chat": CHAT[:1]}


def picture(part: str) -> dict[str, Any]:
    return {"chat": [{"role": "user", "content": [{"type": part}]}], "answer": 1}


def test_a_row_that_cannot_be_carried_costs_itself_only(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It is counted by its reason, and the first of each reason is logged."""
    bad = [
        picture("image_url"),
        picture("image"),
        {"chat": CHAT[3:]},
        {**CHATS[1], "tools": [{"name": "f", "parameters": {"type": "x"}}]},
    ]
    (tmp_path / "x.jsonl").write_text("".join(json.dumps(row) + "\n" for row in (*bad, CHATS[1])))
    sets = [{"family": "chats", "source": {"kind": "jsonl", "path": "x.jsonl"}, "messages": "chat", "tools": "tools"}]
    recipe = Recipe.model_validate({"name": "chats", "prompts": sets})
    refused: Any = {}

    (prompt,) = plan(recipe, tmp_path, refused=refused)

    assert prompt.messages == (Message("user", "1+1?"),)
    assert refused == {"chats": {"an image": 2, "no turn of the user": 1, "bad tools": 1}}
    start = "prompts: family chats: "
    assert [record.getMessage().removeprefix(start) for record in caplog.records] == [
        "2 rows left out (an image); the first: x.jsonl:1: chat: turn 0: an image cannot be carried; only text can",
        "1 rows left out (no turn of the user); the first: x.jsonl:3: chat: no turn of the user; found assistant",
        (
            "1 rows left out (bad tools); the first: x.jsonl:4: tools: tool 0: the parameters of f are no JSON Schema of an "
            "object: at type: 'x' is not valid under any of the given schemas"
        ),
    ]


@pytest.mark.parametrize(
    ("rows", "changes", "message"),
    [
        ([*map(picture, ("image", "input_audio", "image"))], {}, r"no row can be carried \(2: an image, 1: audio\); the"),
        (CHATS, {"messages": "chats"}, "messages: no row has the field 'chats'; did you mean chat?; the rows have"),
        (CHATS, {"tools": "tool"}, "tools: no row has the field 'tool'; did you mean tools?"),
        (CHATS, {"chat_template_kwargs": "kwargs"}, "chat_template_kwargs: no row has the field 'kwargs'"),
        (CHATS, {"reference": "gold"}, "reference: no row has the field 'gold'; .*; name one of these, or set reference: null"),
        (CHATS, {"system": "Be brief {{ name }}."}, "x.jsonl:1: system: 'name' is undefined"),
    ],
)  # fmt: skip
def test_a_set_without_a_row_to_carry_is_an_error(tmp_path: Path, rows: Any, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SourceError, match=message.replace("?;", r"\?;")):
        prompts_of_set(tmp_path, rows, **{"messages": "chat", **changes})


def test_conversations_that_are_answered_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """They are prompts as they are, but seldom meant; keys that messages do not have are named too."""
    rows = [{"chat": CHAT[:1]}, {"chat": [*CHAT[:1], {"role": "assistant", "content": "2", "id": 7}]}]
    planned = prompts_of_set(tmp_path, rows, messages="chat", reference=None)

    assert [len(prompt.messages) for prompt in planned] == [1, 2]
    assert [record.getMessage() for record in caplog.records] == [
        (
            "prompts: family sums: 1 conversations end with a turn of the assistant, and the model is asked for another; "
            "until: last_user or before_answer cuts it off; the first: x.jsonl:2"
        ),
        "prompts: family sums: messages have no place for id; left out",
    ]


@pytest.mark.parametrize("chosen", [None, ["level"]], ids=["all metadata", "named metadata"])
def test_images_beside_a_conversation_are_not_read(tmp_path: Path, chosen: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Rows of a dataset for vision that ask about text only are prompts; the others are refused by their part or their mark."""
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    part = pa.struct([("type", pa.string()), ("text", pa.string())])
    message = pa.struct([("role", pa.string()), ("content", pa.list_(part))])
    texts: list[list[tuple[str, str | None]]] = [
        [("text", "What is 1+1?")],
        [("image", None), ("text", "What is this?")],
        [("text", "<image>\nWhat is this?")],
    ]
    chats = [[{"role": "user", "content": [dict(zip(("type", "text"), each, strict=True)) for each in parts]}] for parts in texts]
    columns = {
        "chat": pa.array(chats, pa.list_(message)),
        "image": pa.array([{"bytes": b"?", "path": None}] * 3, image),
        "level": ["easy"] * 3,
    }
    pq.write_table(pa.table(columns), tmp_path / "x.parquet")
    source = {"kind": "parquet", "path": "x.parquet"}
    refused: Counter[str] = Counter()
    prompt_set = PromptSet.model_validate(
        {"family": "sums", "source": source, "messages": "chat", "reference": None, "metadata": chosen}
    )

    (prompt,) = prompts(prompt_set, tmp_path, refused)

    assert (prompt.messages, prompt.metadata) == ((Message("user", "What is 1+1?"),), {"level": "easy"})
    assert refused == {"an image": 1, "a mark for the column image": 1}
    warnings = [record.getMessage() for record in caplog.records if "left out the columns" in record.getMessage()]
    assert warnings == ([] if chosen else ["x.parquet: left out the columns of images or sound: image"])


def test_prompts_with_tools_and_calls_survive_their_table(tmp_path: Path) -> None:
    settings = {"messages": "chat", "tools": "tools", "chat_template_kwargs": "settings"}
    planned = prompts_of_set(tmp_path, CHATS, **settings)

    assert prompts_of(prompt_table(planned)) == planned


@pytest.mark.parametrize(
    "template",
    ["{{ question.upper() }}", "{{ question }}", "{{ question or '' }}", "{{ 1 // (question | length) }}{{ question[0] }}"],
)
def test_a_row_whose_template_raises_costs_itself(tmp_path: Path, template: str, caplog: pytest.LogCaptureFixture) -> None:
    """It is left out and counted, with the words of the first; the others are carried."""
    rows = [{"question": "1+1?", "answer": "2"}, {"question": None, "answer": "3"}, {"question": "1+2?", "answer": "3"}]
    (tmp_path / "x.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    source, refused = {"kind": "jsonl", "path": "x.jsonl"}, Counter[str]()
    made = PromptSet.model_validate({"family": "sums", "source": source, "template": template, "metadata": []})

    carried = list(prompts(made, tmp_path, refused))

    assert [prompt.reference for prompt in carried] == ["2", "3"]
    assert refused == {"a template gives no text": 1}
    assert "1 rows left out (a template gives no text); the first: x.jsonl:2: template: " in caplog.text


def test_where_the_first_thousand_rows_all_fail_the_rest_is_not_tried(tmp_path: Path) -> None:
    """A misspelt field in a recipe over a million rows is named at once."""
    rows = [{"question": f"{number}?", "answer": "2"} for number in range(1500)] + [{"qestion": "late", "answer": "2"}]

    with pytest.raises(SourceError, match=r"x.jsonl:1: template: 'qestion' is undefined; did you mean question"):
        prompts_of_set(tmp_path, rows, template="{{ qestion }}")
