"""Tokens of expressions."""

import pytest

from filters.maths.tokens import UnknownError, tokens_of


def test_words_of_functions_are_commands() -> None:
    """Two letters that are not a function are two variables."""
    assert tokens_of("2sin x + ab/\\pi") == ["2", "\\sin", "x", "+", "a", "b", "/", "\\pi"]


@pytest.mark.parametrize("text", ["", " ", "apples", "a & b"])
def test_other_texts_are_refused(text: str) -> None:
    """Words, unknown signs and empty texts."""
    with pytest.raises(UnknownError):
        tokens_of(text)
