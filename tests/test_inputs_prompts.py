"""Rows become prompts, or an error that names the row, the field and the closest field."""

import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

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
    """NaN in a field that is not used is no error."""
    rows = [{**row, "junk": math.nan} for row in ROWS]

    assert prompts_of_set(tmp_path, rows, metadata=["level", "answer"])[0].metadata == {"level": "easy", "answer": 2}
    with pytest.raises(SourceError, match=r"x.jsonl:1: junk: nan is not a number in JSON"):
        prompts_of_set(tmp_path, rows)


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
