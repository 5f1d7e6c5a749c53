"""Canaries: of all kinds, from the batch itself, half good and half bad, and never a sample."""

import math
from collections import Counter
from collections.abc import Sequence

import pytest

from filters.models.canaries import KINDS, SURE, Item, chosen, distrusted, failed
from helpers.capitals import CAPITALS
from schemas.sample import Message


def item(task: str, reference: str | None, *, is_answer: bool = True) -> Item:
    return Item((Message("user", task),), "a completion", reference, is_answer=is_answer)


NUMBERS = [item(f"What is {n} + {n}?", str(2 * n)) for n in range(3, 40)]
TEXTS = [item(f"The capital of {country}?", capital) for country, capital in CAPITALS]


def kinds(canaries: Sequence[Item]) -> Counter[str]:
    return Counter(str(canary.kind) for canary in canaries)


def choose(items: Sequence[Item], most: int = 36, *, pairs: bool = False, shipped: bool = True) -> list[Item]:
    return chosen(items, None, most, pairs=pairs, shipped=shipped)


@pytest.mark.parametrize("pairs", [False, True])
def test_every_kind_is_asked_three_times(pairs: bool) -> None:
    """So that one batch says which kind a judge fails on. Text has no other notation; the other good kinds take its place."""
    bad = dict.fromkeys(("other", "mention", "override", "verdict", "turn", "ending"), 3)

    assert kinds(choose(NUMBERS, pairs=pairs)) == {"reference": 6, "sentence": 6, "notation": 6, **bad}
    assert kinds(choose(TEXTS, pairs=pairs)) == {"reference": 6, "sentence": 12, **bad}


@pytest.mark.parametrize("most", [0, 1, 7, 16, 36, 100])
def test_their_number_is_bounded(most: int) -> None:
    canaries = choose(NUMBERS, most)

    assert len(canaries) == most
    assert sum(canary.good for canary in canaries) == most - most // 2


def test_the_truth_of_every_canary_is_sure() -> None:
    """Good ones say the reference of their prompt, and bad ones another value, whatever they say besides."""
    for canary in choose(TEXTS, 200):
        right = dict(CAPITALS)[canary.messages[0].content.split()[-1].rstrip("?")]
        claim = canary.completion.split("\n\n")[0]
        assert canary.reference == right
        assert (right in claim) is (canary.good or canary.kind == "mention")
    same = [item("What is 1/2?", "0.5"), item("What is a half?", "1/2")]
    assert {canary.completion for canary in choose(same, 200) if canary.kind == "other"} == {"3/2"}


def test_the_choice_depends_only_on_the_batch() -> None:
    assert choose(NUMBERS) == choose(NUMBERS)
    assert choose(NUMBERS) != choose(NUMBERS[1:])


def test_one_prompt_is_enough() -> None:
    """A wrong answer to it is then the next number, or none."""
    assert set(kinds(choose([NUMBERS[0]]))) == set(KINDS) - {"known_good", "known_bad"}
    assert "other" not in kinds(choose([TEXTS[0]]))
    assert kinds(choose([TEXTS[0]]))["override"] > 2


def test_a_reference_that_says_how_to_check_an_answer_makes_none() -> None:
    assert choose([item("Write f.", '["assert f(1) == 2"]', is_answer=False)]) == []


def test_without_references_only_instructions_are_asked() -> None:
    """By the rubric of thresher, which accepts no answer that talks about being checked. Another rubric may accept them."""
    unknown = [item("Write a poem.", None)]

    assert set(kinds(choose(unknown))) == {"override", "verdict", "turn", "ending"}
    assert choose(unknown, shipped=False) == choose(unknown, pairs=True) == []


def test_canaries_of_a_file_instruct_as_well() -> None:
    known = [
        Item((Message("user", "Write a poem."),), text, None, kind) for text, kind in (("Ode", "known_good"), ("No", "known_bad"))
    ]

    canaries = chosen(NUMBERS, known, 36, pairs=False, shipped=False)

    assert kinds(canaries) == {"known_good": 1, "known_bad": 1, "override": 4, "verdict": 4, "turn": 4, "ending": 4}
    assert all(canary.completion.startswith("No") for canary in canaries if not canary.good)


@pytest.mark.parametrize(
    ("right", "asked", "expected"), [(0, 2, False), (0, 3, True), (1, 3, False), (1, 5, True), (3, 4, False), (20, 40, True)]
)
def test_a_kind_is_failed_beyond_chance(right: int, asked: int, expected: bool) -> None:
    assert failed(right, asked, 0.75) is expected


def test_the_chance_of_many_is_that_of_the_exact_test() -> None:
    """An audit counts more canaries than floating-point numbers hold ways to choose from."""
    for asked in range(1, 40):
        for right in range(asked + 1):
            chance = sum(math.comb(asked, n) * 0.75**n * 0.25 ** (asked - n) for n in range(right + 1))
            assert failed(right, asked, 0.75) is (chance <= SURE)

    assert [failed(right, 100_000, 0.75) for right in (74_000, 74_900)] == [True, False]
    assert [failed(right, 5, 1.0) for right in (4, 5)] == [True, False]


def test_a_judge_is_distrusted_for_a_kind_or_for_all_together() -> None:
    assert distrusted({"other": [3, 3], "turn": [3, 0]}, 0.75) == ["turn"]
    assert distrusted({"other": [3, 2], "turn": [3, 2]}, 0.75) == ["accuracy"]
    assert distrusted({"other": [4, 3], "turn": [4, 3]}, 0.75) == distrusted({}, 0.75) == []
