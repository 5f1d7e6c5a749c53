"""The texts that a reference accepts."""

from typing import Any

import pytest

from filters.answers.references import accepted_texts


@pytest.mark.parametrize(
    ("reference", "texts"),
    [
        ("Paris", ["Paris"]),
        (5.0, ["5.0"]),
        (["Rome", 3], ["Rome", "3"]),
        (True, None),
        ({"a": 1}, None),
        (None, None),
        ([], None),
        (["Rome", None], None),
    ],
)
def test_texts_numbers_and_lists_of_them_are_accepted(reference: Any, texts: list[str] | None) -> None:
    """Anything else has no acceptable text."""
    assert accepted_texts(reference) == texts
