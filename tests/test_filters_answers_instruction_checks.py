"""The checks of IFEval: each has a text that follows it and one that does not."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from filters.answers.instruction_checks import CHECKS, sentences, words
from helpers.filter_tables import results

LONG = "One two three. Four five!\n\nSix seven?"
CASES: list[tuple[str, dict[str, Any], str, str]] = [
    ("length_constraints:number_words", {"num_words": 3, "relation": "at least"}, "a b c", "a b"),
    ("length_constraints:number_words", {"num_words": 3, "relation": "less than"}, "don't well-known", "a b c"),
    ("length_constraints:number_sentences", {"num_sentences": 3, "relation": "at least"}, LONG, "One. Two"),
    ("length_constraints:number_paragraphs", {"num_paragraphs": 2}, "a\n***\nb", "a\n\nb"),
    (
        "length_constraints:nth_paragraph_first_word",
        {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "six"},
        LONG,
        "Six\n\nOne",
    ),
    ("keywords:existence", {"keywords": ["two", "six"]}, LONG, "twofold six"),
    ("keywords:forbidden_words", {"forbidden_words": ["art"]}, "a part", "Art is"),
    ("keywords:frequency", {"keyword": "a", "frequency": 2, "relation": "at least"}, "a b A", "a ab"),
    ("keywords:letter_frequency", {"letter": "e", "let_frequency": 2, "let_relation": "at least"}, "Eve", "abc"),
    (
        "language:response_language",
        {"language": "es"},
        "El perro duerme en la casa grande.",
        "The dog sleeps in the house.",
    ),
    ("detectable_content:number_placeholders", {"num_placeholders": 2}, "[name] of [city]", "[name]"),
    ("detectable_content:postscript", {"postscript_marker": "P.S."}, "Bye\nP.S. more", "Bye"),
    ("detectable_format:number_bullet_lists", {"num_bullets": 2}, "* a\n- b", "* a"),
    ("detectable_format:number_list_items", {"num_items": 2, "relation": "at least"}, "1. a\n2) b", "a"),
    ("detectable_format:number_highlighted_sections", {"num_highlights": 1}, "so *this* is", "so"),
    ("detectable_format:multiple_sections", {"section_spliter": "Section", "num_sections": 2}, "Section 1\nSection 2", "x"),
    ("detectable_format:json_format", {}, '```json\n{"a": 1}\n```', "{a: 1}"),
    ("detectable_format:title", {}, "<<A title>> text", "A title"),
    ("detectable_format:constrained_response", {}, "I think My answer is no.", "No."),
    ("combination:repeat_prompt", {"prompt_to_repeat": "Say it."}, " say it. Done", "Done"),
    ("combination:two_responses", {}, "one ****** two", "one ****** one"),
    ("startend:end_checker", {"end_phrase": "The end."}, 'so. the END."', "the end. not"),
    ("startend:start_checker", {"start_phrase": "Dear"}, " dear sir", "My dear"),
    ("startend:quotation", {}, '"said"', '"said'),
    ("change_case:capital_word_frequency", {"capital_frequency": 2, "capital_relation": "at least"}, "AB CD ef", "Ab cd"),
    ("change_case:english_capital", {}, "ALL OF IT.", "All"),
    ("change_case:english_lowercase", {}, "all of it.", "All"),
    ("punctuation:no_comma", {}, "a b", "a, b"),
]
"""Name, arguments, a text that follows the instruction, and a text that does not."""


@pytest.mark.parametrize(("name", "arguments", "right", "wrong"), CASES)
def test_instructions(name: str, arguments: dict[str, Any], right: str, wrong: str) -> None:
    """Whether the recipe names the instruction or the prompt's reference does."""
    expected = ["keep", "instruction_not_followed"]

    assert results("instruction", {"checks": {name: arguments}}, {"completion": right}, {"completion": wrong}) == expected
    reference = {"instruction_id_list": [name], "kwargs": [{**arguments, "unused": None}]}
    assert results("instruction", {}, *({"completion": text, "reference": reference} for text in (right, wrong))) == expected


def test_every_instruction_has_a_case() -> None:
    """The cases above cover all checks."""
    assert {name for name, *_ in CASES} == set(CHECKS)
    assert len(CHECKS) >= 15


@given(st.text(max_size=300))
def test_a_check_accepts_any_text(text: str) -> None:
    """It returns a truth value, or None where that is not known, and does not raise."""
    for name, arguments, *_ in CASES:
        assert CHECKS[name](text, arguments) in (True, False, None)


def test_words_and_sentences_are_counted() -> None:
    """A hyphen or an apostrophe does not split a word; an unfinished sentence counts."""
    assert (words("don't use well-known_words 3"), sentences("One. Two! And three")) == (4, 3)
