"""Changed prompts ask the same question."""

from collections import Counter
from dataclasses import replace

import pytest

from schemas.sample import Message, Prompt
from thresher import ids
from thresher.errors import ThresherError
from thresher.study.prompt_variants import checked_wordings, variants

EXAMPLES = [turn for word in ("one", "two", "three") for turn in (("user", word), ("assistant", word.upper()))]
PROMPT = Prompt(
    "id",
    "upper",
    (Message("system", "Shout."), *(Message(*turn) for turn in EXAMPLES), Message("user", "four")),
    "FOUR",
)


def contents(prompt: Prompt) -> list[str]:
    return [message.content for message in prompt.messages]


def test_changes_keep_the_question_and_its_reference() -> None:
    changed = dict(variants(PROMPT, ("Say {} aloud",)))

    assert set(changed) == {
        "whitespace: newline_after", "whitespace: space_before", "whitespace: spaces_after", "wording: Say {} aloud",
        "order: reversed", "order: rotated",
    }  # fmt: skip
    assert len({PROMPT.prompt_id, *(variant.prompt_id for variant in changed.values())}) == 1 + len(changed)
    for name, variant in changed.items():
        assert (variant.reference, variant.family, variant.messages[0]) == ("FOUR", "upper", PROMPT.messages[0])
        assert Counter(message.role for message in variant.messages) == Counter(message.role for message in PROMPT.messages)
        words = " ".join(contents(variant)).replace("Say ", "").replace(" aloud", "").split()
        assert Counter(words) == Counter(" ".join(contents(PROMPT)).split()), name


def test_worked_examples_are_reordered_in_pairs() -> None:
    changed = dict(variants(PROMPT))

    assert contents(changed["order: reversed"]) == ["Shout.", "three", "THREE", "two", "TWO", "one", "ONE", "four"]
    assert contents(changed["order: rotated"]) == ["Shout.", "two", "TWO", "three", "THREE", "one", "ONE", "four"]
    assert "order: reversed" not in dict(variants(replace(PROMPT, messages=PROMPT.messages[-1:])))


def test_a_wording_is_put_around_every_user_turn() -> None:
    changed = dict(variants(PROMPT, ("Say {} aloud",)))

    assert contents(changed["wording: Say {} aloud"])[1:3] == ["Say one aloud", "ONE"]


def test_changed_prompts_keep_tools_and_calls() -> None:
    """Their ids depend on them, as those of any prompt."""
    call = '[{"type":"function","function":{"name":"add","arguments":{}}}]'
    turns = (Message("user", "1+1?"), Message("assistant", "", "Hm.", call), Message("tool", "2", tool_call_id="c"))
    with_tools = Prompt("id", "sums", turns, "2", tools="[]", template="{}")

    for name, variant in variants(with_tools, ("Say {} aloud",)):
        assert variant.prompt_id == ids.prompt_id(variant.messages, "2", "[]", "{}")
        assert [message.tool_calls for message in variant.messages] == [None, call, None]
        assert variant.messages[-1].tool_call_id == "c", name


def test_a_wording_without_a_place_for_the_text_is_refused() -> None:
    with pytest.raises(ThresherError, match="where the user's text goes"):
        checked_wordings(["Please"])
