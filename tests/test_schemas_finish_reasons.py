"""How completions end, in all spellings."""

import pytest

from schemas.finish_reasons import SPELLINGS, pool_reason


@pytest.mark.parametrize("reason", SPELLINGS)
def test_every_spelling_has_one_meaning_in_any_case(reason: str) -> None:
    """Also as a member of an enumeration, as Google's and Mistral's clients print it."""
    for word in SPELLINGS[reason]:
        assert {pool_reason(form) for form in (word, word.upper(), f"FinishReason.{word.upper()}", f" {word} ")} == {reason}
    assert sum(reason in {pool_reason(word) for word in words} for words in SPELLINGS.values()) == 1


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("content_filter: RECITATION", "content_filter"),
        ("FINISH_REASON_MAX_TOKENS", "length"),
        ("end-turn", "stop"),
        ("finished", None),
        ("OTHER", None),
        ("FINISH_REASON_UNSPECIFIED", None),
        ("", None),
    ],
)
def test_other_forms_and_unknown_words(word: str, reason: str | None) -> None:
    assert pool_reason(word) == reason
