"""near_duplicate and near_miss as filters: what they say, in which words, and who stays."""

import json
import re
import unicodedata
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from filters.base import Filter
from filters.judging import judge, judge_corpus
from filters.similarity import near_duplicate, near_miss
from filters.similarity.kernel import numbers
from filters.similarity.near_miss import differing
from schemas.repeats import DedupeSpec, NearMissSpec
from schemas.sample import Kind

LONG = "We take the first number and add the second number to it, step by step, until nothing is left, and so we find {}."


def table(*completions: str, **columns: list[Any]) -> pa.Table:
    rows = len(completions)
    made = {
        "sample_id": [f"s{number}" for number in range(rows)],
        "prompt_id": ["p"] * rows,
        "index": list(range(rows)),
        "completion": list(completions),
        "cumulative_logprob": [None] * rows,
        "answer": [None] * rows,
        "score": [None] * rows,
        "multiplicity": [1] * rows,
        "kind": ["hit"] * rows,
    } | columns
    types = {
        "sample_id": pa.string(), "prompt_id": pa.string(), "index": pa.int32(), "completion": pa.string(),
        "cumulative_logprob": pa.float64(), "answer": pa.string(), "score": pa.float64(), "multiplicity": pa.int64(),
        "kind": pa.string(),
    }  # fmt: skip
    return pa.table({name: pa.array(made[name], kind) for name, kind in types.items()})


def in_prompt(given: pa.Table, **spec: Any) -> list[dict[str, Any]]:
    return rows(judge(near_duplicate.within_prompt(DedupeSpec(**spec)), given))


def in_run(*given: pa.Table, **spec: Any) -> list[dict[str, Any]]:
    return [row for one in judge_corpus(near_duplicate.within_run(DedupeSpec(**spec)), given) for row in rows(one)]


def rows(verdicts: pa.Table) -> list[dict[str, Any]]:
    return [row | {"detail": row["detail"] and json.loads(row["detail"])} for row in verdicts.to_pylist()]


def repeats(verdicts: list[dict[str, Any]]) -> list[str | None]:
    return [row["detail"]["duplicate_of"] if row["outcome"] == "drop" else None for row in verdicts]


def test_a_duplicate_names_what_it_repeats_and_how_like_it_is():
    said = in_prompt(table(LONG.format("out"), LONG.format("it"), LONG.format("it").upper(), "Something else altogether."))

    assert [(row["outcome"], row["reason"]) for row in said] == [
        ("drop", "near_duplicate"),
        ("keep", ""),
        ("drop", "exact_duplicate"),
        ("keep", ""),
    ]
    assert repeats(said) == ["s1", None, "s1", None]
    assert said[0]["detail"]["similarity"] == said[0]["score"] == pytest.approx(22 / 24, abs=1e-4)
    assert said[0]["detail"]["scope"] == "prompt"
    assert [row["detail"] for row in said if row["outcome"] == "keep"] == [{"multiplicity": 3}, None]


def test_the_shortest_stays_unless_another_has_a_higher_score():
    texts = (LONG.format("it"), LONG.format("this"), LONG.format("at last"))

    assert repeats(in_prompt(table(*texts))) == [None, "s0", "s0"]
    assert repeats(in_prompt(table(*texts, score=[0.1, 0.9, None]))) == ["s1", None, "s1"]
    assert repeats(in_prompt(table(*texts, score=[0.1, 0.9, None]), keep=("shortest",))) == [None, "s0", "s0"]


def test_the_likeliest_stays_among_those_of_one_length_and_then_the_smallest_id():
    texts = (LONG.format("it"), LONG.format("us"), LONG.format("me"))

    assert repeats(in_prompt(table(*texts, cumulative_logprob=[-9.0, -3.0, None]))) == ["s1", None, "s1"]
    assert repeats(in_prompt(table(*texts))) == [None, "s0", "s0"]
    assert repeats(in_prompt(table(*texts, sample_id=["c", "b", "a"]))) == ["a", "a", None]


def test_samples_that_differ_in_a_number_are_no_duplicates():
    """Unless a verifier accepted both for one reference, or nobody asks."""
    texts = (LONG.format("41"), LONG.format("42"), LONG.format("42").upper())

    assert repeats(in_prompt(table(*texts))) == [None, None, "s1"]
    assert repeats(in_prompt(table(*texts), guard="none")) == [None, "s0", "s0"]
    assert repeats(in_prompt(table(*texts, answer=["7"] * 3))) == [None, "s0", "s0"]
    assert repeats(in_prompt(table(*texts, answer=["7"] * 3), guard="numbers")) == [None, None, "s1"]
    assert repeats(in_prompt(table(*texts, answer=["7", "8", "8"]), guard="answer")) == [None, None, "s1"]


def test_other_prompts_are_other_samples():
    assert repeats(in_prompt(table("same", "same", prompt_id=["p", "q"]))) == [None, None]


def test_within_the_run_only_long_completions_repeat_those_of_other_prompts():
    """Across batches; that two prompts have one short answer is no fault."""
    long = LONG.format("out") + " " + LONG.format("this")
    first, second = table("Paris", long, prompt_id=["p", "p"]), table("Paris", long + " Yes", "Paris", prompt_id=["q", "q", "q"])
    second = second.set_column(0, "sample_id", pa.array(["t0", "t1", "t2"]))

    assert repeats(in_run(first, second)) == [None, None, None, "s1", "t0"]
    assert repeats(in_run(first, second, run_characters=0)) == [None, None, "s0", "s1", "s0"]


def test_draws_add_up_over_filters():
    """What repeats a sample that others repeat brings its own along."""
    long = LONG.format("out") + " " + LONG.format("this")
    said = in_run(table(long, long + " Yes", multiplicity=[3, 4]))

    assert said[0]["detail"] == {"multiplicity": 7}


@pytest.mark.parametrize("completions", [("", ""), ("", " \n"), ("?", "?"), ("a", "A")], ids=repr)
def test_empty_and_one_word_answers(completions):
    assert repeats(in_prompt(table(*completions))) == [None, "s0"]


def test_a_run_without_hits():
    assert in_run() == []
    assert in_run(table(), table()) == []


# -- near misses ---------------------------------------------------------------------------------------------------------


def missed(given: pa.Table, **spec: Any) -> list[dict[str, Any]]:
    return rows(judge(near_miss.build(NearMissSpec(**spec)), given))


def kinds(*some: str) -> dict[str, list[str]]:
    names = {"h": Kind.HIT.value, "m": Kind.MISS.value}
    return {"kind": [names[one] for one in some]}


def test_a_near_miss_names_its_nearest_hit_and_what_differs():
    given = table(LONG.format("42"), LONG.format("43"), LONG.format("the number 42"), "No idea.", **kinds("h", "m", "h", "m"))

    said = missed(given)

    assert [row["outcome"] for row in said] == ["keep", "drop", "keep", "keep"]
    assert said[1]["reason"] == "near_miss"
    detail = said[1]["detail"]
    assert (detail["nearest"], detail["edits"], detail["is"], detail["hit"]) == ("s0", 1, "43", "42")
    assert detail["similarity"] == said[1]["score"] == pytest.approx(1 - 1 / 28, abs=1e-4)
    start, end = detail["span"]
    assert given["completion"][1].as_py()[start:end] == "43"


@pytest.mark.parametrize(
    ("one", "other", "near"),
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
def test_near_is_three_words_or_a_tenth_and_half_of_them_in_common(one, other, near):
    assert missed(table(one, other, **kinds("h", "m")))[1]["outcome"] == ("drop" if near else "keep")


def test_hits_of_other_prompts_make_no_near_miss():
    assert missed(table("a b c d", "a b c e", prompt_id=["p", "q"], **kinds("h", "m")))[1]["outcome"] == "keep"


@pytest.mark.parametrize(
    ("one", "other", "spans"),
    [
        ("a bcd e", "a bxd e", ("bcd", "bxd")),
        ("a b", "a b c", ("", " c")),
        ("same", "same", ("", "")),
        ("", "x", ("", "x")),
        ("aa aa", "aa aa aa", ("", " aa")),
        ("\u00e9t\u00e9 1", "\u00e9t\u00e9 2", ("1", "2")),
    ],
)
def test_what_differs_is_whole_words(one, other, spans):
    start, end, finish = differing(one, other)

    assert (one[start:end], other[start:finish]) == spans
    assert one[:start] + other[start:finish] + one[end:] == other


def test_their_keys_hold_their_settings():
    filters: list[Filter] = [
        near_duplicate.within_prompt(DedupeSpec()),
        near_duplicate.within_prompt(DedupeSpec(within_prompt=0.8)),
    ]

    assert filters[0].key != filters[1].key


@given(st.lists(st.text(st.sampled_from("0179.,- a\u0663\uff11"), max_size=12), min_size=1, max_size=4))
def test_numbers_are_those_that_a_plain_search_finds(texts: list[str]) -> None:
    """Digits of any script, with single dots and commas between them; a number is what is written, in any order."""
    plain = [sorted(re.findall(r"\d+(?:[.,]\d+)*", unicodedata.normalize("NFKC", text))) for text in texts]
    values = [["".join(str(unicodedata.decimal(c, c)) for c in one) for one in found] for found in plain]
    hashed = numbers(pa.array(texts)).tolist()

    for one, found in zip(values, hashed, strict=True):
        assert (found == 0) == (not one)
        for other, further in zip(values, hashed, strict=True):
            assert (sorted(one) == sorted(other)) == (found == further)
