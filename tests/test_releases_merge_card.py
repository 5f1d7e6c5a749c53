"""A generated card is merged with the text of a person, whatever became of its marks."""

import pytest

from helpers.cards import RUN_CARD, manifest
from thresher.errors import PublishError
from thresher.releases.merge_card import BEGIN, END, card_id, decoded, merge, origin, own_part
from thresher.releases.readme import generate

CARDS = [generate(RUN_CARD, manifest(number)) for number in (1, 2, 3)]
ID = f"<!-- thresher: card {card_id(CARDS[0])} -->\n"


def merged(old: str) -> str:
    """The third card, merged with one that a person made of the first."""
    return merge(CARDS[2], old, origin(old, CARDS[::-1][1:] if card_id(old) else CARDS[:1]))


@pytest.mark.parametrize(
    "gone", [[BEGIN], [END], [ID], [BEGIN, END], [BEGIN, ID], [BEGIN, END, ID], [END, "\n## Releases"], [BEGIN, "New words.\n"]]
)
def test_text_is_neither_lost_nor_doubled_where_marks_are_deleted(gone: list[str]) -> None:
    old = (
        merge(CARDS[0], "# Mine\n\n    code\n", None)
        .replace(BEGIN, f"Above.\n\n{BEGIN}")
        .replace("New words.", "New words.\nOn.")
    )
    for mark in gone:
        assert mark in old
        old = old.replace(mark, "")

    text = merged(old)

    once = [BEGIN, END, "New words.", "## Releases", "## Limits", "| v1.0.0 |", "| v1.2.0 |", "# Mine", "    code\n", "Above."]
    once += ["On.\n"]
    assert {word: text.count(word) for word in once} == dict.fromkeys(once, 1)
    assert text.index("Above.") < text.index(BEGIN)
    assert text.index(END) < text.index("On.\n") < text.index("# Mine")
    assert merge(CARDS[2], text, CARDS[2]) == text


def test_line_ends_and_trailing_spaces_are_no_text_of_a_person() -> None:
    old = CARDS[0].replace("\n", "  \r\n")

    assert merged(old).split("\n---\n")[1] == CARDS[2].split("\n---\n")[1]


def test_a_card_of_an_older_version_is_taken_for_its_own() -> None:
    """It has marks, and no generated card was kept."""
    old = CARDS[0].replace(ID, "").replace("license: mit", "license: mit\nviewer: false")
    part = own_part(old)

    assert (part.count("viewer"), part.count("New words.")) == (0, 1)
    text = merge(CARDS[2], old + "Mine.\n", origin(old, [part]))
    assert text == CARDS[2].replace("license: mit", "license: mit\nviewer: false") + "Mine.\n"


def test_the_card_that_a_text_was_made_from_is_found() -> None:
    assert origin(None, CARDS) is None
    assert origin("# Mine\n", CARDS) is None
    assert origin(CARDS[1] + "Mine.\n", CARDS) == CARDS[1]
    assert origin(CARDS[1].replace(ID[:-1], "").replace(BEGIN, "").replace(END, ""), CARDS[1:]) == CARDS[1]
    assert origin(CARDS[0], CARDS[1:]) == CARDS[1]


def test_a_card_in_another_encoding_is_refused() -> None:
    with pytest.raises(PublishError, match=r"x/README.md: is not UTF-8 text .*; save it as UTF-8"):
        decoded("é".encode("latin-1"), "x/README.md")
