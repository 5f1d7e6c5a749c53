"""Guards: what duplicates must agree in."""

import pyarrow as pa
import pytest

from filters.similarity.guards import answer_ids, guards, hashes, signed_in_run
from helpers.hit_tables import hit_table
from schemas.repeats import DedupeSpec


@pytest.mark.parametrize(
    ("guard", "agree"),
    [("answer", [True, False, False]), ("numbers", [False, True, False]), ("none", [True, True, True])],
)
def test_a_guard_is_an_answer_the_numbers_or_nothing(guard: str, agree: list[bool]) -> None:
    """Compared with the first sample: the same answer, the same number, neither."""
    table = hit_table("it is 42", "it is 43", "so 42", "so 43", accepted=["7", "7", "8", "8"])
    values = guards(table, DedupeSpec(guard=guard))

    assert [value == values[0] for value in values[1:]] == agree


def test_without_an_answer_the_numbers_count() -> None:
    """For each sample by itself."""
    values = guards(hit_table("it is 42", "so 42", accepted=[None, None]), DedupeSpec())

    assert values[0] == values[1]


def test_answer_ids_are_the_same_guards_as_text() -> None:
    """A dataset has them instead of the answers."""
    table = hit_table("a", "b", "c 1", accepted=["7", "8", None])
    ids = answer_ids(table["accepted"])
    by_id = table.drop_columns(["accepted"]).append_column("answer_id", ids)

    assert ids.null_count == 1
    assert guards(by_id, DedupeSpec()).tolist() == guards(table, DedupeSpec()).tolist()


def test_short_texts_of_two_prompts_have_different_contents() -> None:
    """Long ones may be duplicates."""
    table = hit_table("Paris", "Paris", "long " * 50, "long " * 50, prompt_id=["p", "q", "p", "q"])
    contents = signed_in_run(table, DedupeSpec()).contents

    assert contents[0] != contents[1]
    assert contents[2] == contents[3]


def test_equal_texts_have_equal_hashes() -> None:
    """No texts have none."""
    values = hashes(pa.chunked_array([["a", "b"], ["a"]]))

    assert values[0] == values[2] != values[1]
    assert len(hashes(pa.chunked_array([pa.array([], pa.string())]))) == 0
