"""Dialects of servers, and how the form of requests adapts to refusals."""

from dataclasses import replace
from typing import Any

import pytest

from thresher.samplers.http.dialects import OPENAI, VLLM, VLLM_PLAIN, Form, adapted, dialect_of, refusals

CHAT: dict[str, Any] = {"api": "chat", "extensions": "auto", "calibrated": False}


@pytest.mark.parametrize(
    ("owner", "extensions", "dialect"),
    [
        ("vllm", "auto", VLLM),
        ("vllm", "none", VLLM_PLAIN),
        ("openai", "auto", OPENAI),
        ("openai", "none", OPENAI),
        ("openai", "vllm", VLLM),
        (None, "auto", OPENAI),
        (["vllm"], "auto", OPENAI),
    ],
)
def test_the_dialect_follows_from_the_owner_and_the_recipe(owner: object, extensions: Any, dialect: Any) -> None:
    assert dialect_of(owner, extensions) == dialect


@pytest.mark.parametrize(
    ("message", "refused"),
    [
        ("This model's maximum context length is 8 tokens.", ["length"]),
        ("Prompt is too long", ["length"]),
        ("Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead.", ["max_tokens"]),
        ("Unrecognized request argument supplied: top_k", ["extensions"]),
        ("body.min_p: extra_forbidden", ["extensions"]),
        ("top_k must be -1 (disable), or at least 1, got 0.", []),
        ("logprobs are not supported", ["logprobs"]),
        ("unknown field: top_logprobs", ["extensions", "logprobs"]),
        ("no such model", []),
    ],
)
def test_refusals_are_read_from_the_servers_message(message: str, refused: list[str]) -> None:
    assert refusals(message) == refused


def test_the_name_of_max_tokens_changes_once_and_only_in_chat() -> None:
    change = adapted(Form(OPENAI), "max_tokens", **CHAT)

    assert change == (Form(OPENAI, length_field="max_completion_tokens"), None)
    assert adapted(change[0], "max_tokens", **CHAT) is None
    assert adapted(Form(OPENAI), "max_tokens", **CHAT | {"api": "completions"}) is None


def test_vllms_fields_are_left_out_unless_the_recipe_demands_them() -> None:
    change = adapted(Form(VLLM), "extensions", **CHAT)

    assert change is not None
    assert change[0] == Form(VLLM_PLAIN)
    assert "refuses vLLM's fields" in (change[1] or "")
    assert adapted(Form(VLLM), "extensions", **CHAT | {"extensions": "vllm"}) is None
    assert adapted(Form(VLLM_PLAIN), "extensions", **CHAT) is None
    assert adapted(Form(OPENAI), "extensions", **CHAT) is None


def test_top_logprobs_shrink_to_five_then_none_before_logprobs_go() -> None:
    """Uncalibrated requests ask for no top log-probabilities, so their refusal is of all log-probabilities."""
    form, warnings = Form(OPENAI), []
    for _ in range(3):
        change = adapted(form, "logprobs", **CHAT | {"calibrated": bool(form.top_logprobs)})
        assert change is not None
        form, warning = change
        warnings.append(warning)

    assert form == Form(OPENAI, top_logprobs=0, logprobs=False)
    assert [warning is None for warning in warnings] == [True, False, False]
    assert adapted(form, "logprobs", **CHAT) is None
    assert adapted(Form(OPENAI), "logprobs", **CHAT) == (replace(Form(OPENAI), logprobs=False), warnings[2])
