"""The prompts of a recipe and their sources."""

from typing import Any

import pytest
from pydantic import ValidationError

from schemas.prompt_sets import DatasetSource, GridSource, PromptSet


def test_the_kind_selects_the_source() -> None:
    """With the defaults of that source."""
    prompts = PromptSet.model_validate({"family": "sums", "source": {"kind": "dataset", "path": "org/name"}})

    assert prompts.source == DatasetSource(kind="dataset", path="org/name")
    assert (prompts.template, prompts.reference, prompts.source.split) == ("{{ question }}", "answer", "train")


@pytest.mark.parametrize(
    "changes",
    [
        {"family": "two words"},
        {"source": {"kind": "csv", "path": "rows.csv"}},
        {"source": {"kind": "grid", "fields": {}}},
        {"source": {"kind": "grid", "fields": {"n": []}}},
        {"source": {"kind": "reasoning_gym", "name": "chain_sum", "size": 0}},
        {"limit": 0},
        {"few_shot": [{"user": "1 + 1"}]},
    ],
)
def test_incomplete_sets_are_refused(changes: dict[str, Any]) -> None:
    """Names, sources, limits and worked examples."""
    with pytest.raises(ValidationError):
        PromptSet.model_validate({"family": "sums", "source": {"kind": "jsonl", "path": "rows.jsonl"}} | changes)


def test_a_grid_keeps_the_order_of_its_fields() -> None:
    """Rows follow the order written."""
    assert list(GridSource(kind="grid", fields={"b": [1], "a": [2]}).fields) == ["b", "a"]


SOURCE = {"kind": "jsonl", "path": "rows.jsonl"}


def test_messages_replace_the_template_and_survive_a_dump() -> None:
    """A stored recipe has every default written out, and must still be the same recipe."""
    chats = PromptSet.model_validate({"family": "chats", "source": SOURCE, "messages": "messages"})
    answered = PromptSet.model_validate(
        {"family": "chats", "source": SOURCE, "messages": "m", "until": "last_user", "reference_from_messages": True}
    )

    assert (chats.template, chats.reference, chats.until) == (None, "answer", "all")
    assert (answered.template, answered.reference) == (None, None)
    for prompts in (chats, answered):
        assert PromptSet.model_validate(prompts.model_dump(mode="json")) == prompts


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"messages": "m", "template": "{{ question }}"}, "messages and template exclude each other; remove one"),
        ({"template": None}, "template: a set without messages needs one"),
        ({"until": "last_user"}, "until applies to conversations; name their field in messages, or remove until"),
        ({"reference_from_messages": True}, "reference_from_messages applies to conversations"),
        ({"messages": "m", "reference_from_messages": True}, "reference_from_messages needs an answer that is cut off"),
        (
            {"messages": "m", "until": "last_user", "reference_from_messages": True, "reference": "answer"},
            "reference_from_messages and reference exclude each other",
        ),
        (
            {"messages": "m", "until": "last_user", "reference_from_messages": True, "reference_template": "x"},
            "reference_from_messages and reference_template exclude each other",
        ),
        ({"chat_template_kwargs": {"tools": []}}, "chat_template_kwargs: tools is set by thresher; remove it"),
        ({"messages": "m", "until": "first"}, "Input should be 'all', 'last_user' or 'before_answer'"),
    ],
)
def test_settings_of_conversations_agree(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        PromptSet.model_validate({"family": "chats", "source": SOURCE} | changes)
