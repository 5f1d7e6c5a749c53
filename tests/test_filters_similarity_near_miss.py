"""near_miss as a filter: which misses are near, and what differs."""

from typing import Any

import pyarrow as pa
import pytest

from filters.judging import judge
from filters.similarity import near_miss
from filters.similarity.near_miss import differing
from helpers.hit_tables import hit_table, verdict_rows
from schemas.repeats import NearMissSpec
from schemas.sample import Kind

LONG = "We take the first number and add the second number to it, step by step, until nothing is left, and so we find {}."


def verdicts(table: pa.Table, **spec: Any) -> list[dict[str, Any]]:
    return verdict_rows(judge(near_miss.build(NearMissSpec(**spec)), table))


def kinds(letters: str) -> list[str]:
    """The kinds of samples: h for a hit, m for a miss."""
    return [{"h": Kind.HIT.value, "m": Kind.MISS.value}[letter] for letter in letters]


def test_a_near_miss_names_its_nearest_hit_and_what_differs() -> None:
    """In edits, similarity, and spans of both texts."""
    table = hit_table(LONG.format("42"), LONG.format("43"), LONG.format("the number 42"), "No idea.", kind=kinds("hmhm"))

    rows = verdicts(table)

    assert [row["outcome"] for row in rows] == ["keep", "drop", "keep", "keep"]
    assert rows[1]["reason"] == "near_miss"
    detail = rows[1]["detail"]
    assert (detail["nearest"], detail["edits"], detail["is"], detail["hit"]) == ("s0", 1, "43", "42")
    assert detail["similarity"] == rows[1]["score"] == pytest.approx(1 - 1 / 28, abs=1e-4)
    start, end = detail["span"]
    assert table["completion"][1].as_py()[start:end] == "43"


@pytest.mark.parametrize(
    ("hit", "miss", "near"),
    [
        ("a b c d e f g h", "a b c d e x y z", True),
        ("a b c d e f g h", "a b c d w x y z", False),
        (" ".join("abcdefghij" * 6), " ".join("abcdefghij" * 5 + "abcd" + "zzzzzz"), True),
        (" ".join("abcdefghij" * 6), " ".join("abcdefghij" * 5 + "abc" + "zzzzzzz"), False),
        ("Paris", "Lyon", False),
        ("A: 41", "A: 42", True),
        ("x = a + b", "x = a - b", True),
    ],
)
def test_near_is_three_words_or_a_tenth_and_half_of_them_in_common(hit: str, miss: str, near: bool) -> None:
    """The defaults of the recipe."""
    assert verdicts(hit_table(hit, miss, kind=kinds("hm")))[1]["outcome"] == ("drop" if near else "keep")


def test_hits_of_other_prompts_make_no_near_miss() -> None:
    """Only hits of the same prompt count."""
    assert verdicts(hit_table("a b c d", "a b c e", prompt_id=["p", "q"], kind=kinds("hm")))[1]["outcome"] == "keep"


@pytest.mark.parametrize(
    ("first", "second", "spans"),
    [
        ("a bcd e", "a bxd e", ("bcd", "bxd")),
        ("a b", "a b c", ("", " c")),
        ("same", "same", ("", "")),
        ("", "x", ("", "x")),
        ("aa aa", "aa aa aa", ("", " aa")),
        ("\u00e9t\u00e9 1", "\u00e9t\u00e9 2", ("1", "2")),
    ],
)
def test_what_differs_is_whole_words(first: str, second: str, spans: tuple[str, str]) -> None:
    """And nothing more; the rest of both texts is equal."""
    start, end, second_end = differing(first, second)

    assert (first[start:end], second[start:second_end]) == spans
    assert first[:start] + second[start:second_end] + first[end:] == second
