"""Completions are taken apart into reasoning and answer."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

import filters
from filters.judging import judge
from filters.reasoning import USUAL, USUAL_MARKS, Marking, join, opens_thinking, take_apart

CASES = [
    json.loads(line) for line in (Path(__file__).with_name("data") / "truth" / "reasoning_blocks.jsonl").read_text().splitlines()
]
THINK = Marking((("<think>", "</think>"),), channels=False)
OPENED = Marking((("<think>", "</think>"),), channels=False, opened=True)
HARMONY = (
    "<|channel|>analysis<|message|>add them<|end|><|start|>assistant<|channel|>analysis<|message|>41 or 42<|end|>"
    "<|start|>assistant<|channel|>final<|message|>It is 42.<|return|>"
)


def parts(text: str, marking: Marking | None = USUAL, *, opened: bool | None = None) -> tuple[str | None, str | None]:
    apart = take_apart(pa.array([text]), marking, None if opened is None else [opened])
    return apart.reasoning[0].as_py(), apart.answer[0].as_py()


@pytest.mark.parametrize(
    ("text", "reasoning", "answer"),
    [
        ("<think>a</think>b", "a", "b"),
        ("<think>\na\n\nb\n</think>\n\nc\n", "a\n\nb", "c\n"),
        ("  \n<think>a</think>b", "a", "b"),
        ("<think></think>b", "", "b"),
        ("<think>\n\n</think>\n\nb", "", "b"),
        ("<think>a</think>", "a", ""),
        ("<think>a", "a", None),
        ("a</think>b", "a", "b"),
        ("Sure.\n<think>\na\n</think>\nb", "Sure.\n<think>\na", "b"),
        ("just b", None, "just b"),
        ("", None, ""),
        ("b</s>", None, "b"),
        ("<think>a</think>b<|im_end|>", "a", "b"),
        ("<think>a</think>Write <think>x</think> around it.", "a", "Write <think>x</think> around it."),
        ("Models write <think>x</think> first.", None, "Models write <think>x</think> first."),
        ("Close it with `</think>` here.", None, "Close it with `</think>` here."),
        ("```xml\n<think>\nx\n</think>\n```\n", None, "```xml\n<think>\nx\n</think>\n```\n"),
        ("[THINK]a[/THINK]b", "a", "b"),
        ("<seed:think>a</seed:think>b", "a", "b"),
        ("◁think▷é◁/think▷b", "é", "b"),
        (HARMONY, "add them\n41 or 42", "It is 42."),
        ("<|channel|>analysis<|message|>still", "still", None),
    ],
)
def test_a_completion_has_reasoning_and_an_answer(text: str, reasoning: str | None, answer: str | None) -> None:
    assert parts(text) == (reasoning, answer)


@pytest.mark.parametrize(
    ("text", "reasoning", "answer"),
    [("a</think>b", "a", "b"), ("a", "a", None), ("", "", None), ("x `</think>` y</think>b", "x `", "` y</think>b")],
)
def test_where_the_prompt_opens_the_thinking_the_first_end_mark_closes_it(text: str, reasoning: str, answer: str | None) -> None:
    assert parts(text, OPENED) == (reasoning, answer)
    assert parts(text, THINK, opened=True) == (reasoning, answer)


def test_a_prompt_that_closed_its_thinking_is_answered_directly() -> None:
    assert parts("b", OPENED, opened=False) == (None, "b")


def test_without_a_marking_nothing_is_taken_apart() -> None:
    assert parts("<think>a</think>b</s>", None) == (None, "<think>a</think>b</s>")


def test_other_marks_are_text() -> None:
    assert parts("[THINK]a[/THINK]b", THINK) == (None, "[THINK]a[/THINK]b")


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["why"])
def test_verifiers_judge_the_answer(case: dict[str, Any]) -> None:
    reference = None if case["reference"] is None else json.dumps(case["reference"])
    table = pa.table(
        {
            "sample_id": ["s"],
            "prompt_id": ["p"],
            "completion": [case["completion"]],
            "reference": pa.array([reference], pa.string()),
            "metadata": ["{}"],
            "finish_reason": ["stop"],
        }
    )

    (verdict,) = judge(filters.build(case["filter"], case["params"]), table).to_pylist()

    assert verdict["outcome"] == case["expected"]


def test_ends_count_the_bytes_up_to_the_answer() -> None:
    text = "<think>\né\n</think>\n\nb"

    (end,) = take_apart(pa.array([text])).ends.tolist()

    assert text.encode()[:end] == "<think>\né\n</think>".encode()


def test_rows_keep_their_order() -> None:
    texts = ["plain", "<think>a</think>b", None, "c", "<think>d"]
    apart = take_apart(pa.chunked_array([texts[:2], texts[2:]], pa.string()))

    assert apart.reasoning.to_pylist() == [None, "a", None, None, "d"]
    assert apart.answer.to_pylist() == ["plain", "b", None, "c", None]


word = st.text(st.characters(codec="utf-8", exclude_characters="`'\"<>[]|~◁▷"), min_size=1).filter(
    lambda text: text.strip() == text and text != ""
)


@given(reasoning=word, answer=word, pair=st.sampled_from(USUAL_MARKS))
def test_what_was_joined_comes_apart_again(reasoning: str, answer: str, pair: tuple[str, str]) -> None:
    assert parts(join(reasoning, answer, pair=pair)) == (reasoning, answer)


@given(st.text())
def test_a_text_without_marks_is_its_own_answer(text: str) -> None:
    if not any(mark in text for pair in USUAL_MARKS for mark in pair):
        assert parts(text) == (None, text)


def test_a_prompt_that_ends_in_an_open_mark_opens_the_thinking() -> None:
    assert opens_thinking("<|im_start|>assistant\n<think>\n", THINK)
    assert not opens_thinking("<|im_start|>assistant\n<think>\n\n</think>\n\n", THINK)
    assert not opens_thinking("<|im_start|>assistant\n", THINK)
