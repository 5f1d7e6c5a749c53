"""Counts of each prompt's samples add up, and pass rates are shares of what was decided."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.sampling import Sampling
from thresher.pool.prompt_counts import pass_rates, prompt_counts


@given(st.lists(st.tuples(st.integers(0, 4), st.sampled_from(["hit", "duplicate", "miss", None]), st.booleans())))
@settings(max_examples=60)
def test_counts_of_prompts_add_up_to_the_samples(rows: list[tuple[int, str | None, bool]]) -> None:
    table = drawn_table(rows)

    first, prompt, counts = prompt_counts(table)

    drawn = [kind for _, kind, anchor in rows if not anchor]
    assert counts["samples"].sum() == len(drawn)
    assert counts["passed"].sum() == sum(kind in ("hit", "duplicate") for kind in drawn)
    assert counts["undecided"].sum() == drawn.count(None)
    assert np.all(np.diff(first) > 0)
    assert [rows[row][0] for row in first[prompt]] == [prompt for prompt, _, _ in rows]


def test_pass_rates_are_shares_of_what_was_decided() -> None:
    table = drawn_table([(0, "hit", False), (0, "duplicate", False), (0, "miss", False), (0, None, False), (1, None, False)])

    assert pass_rates(table) == [pytest.approx(2 / 3), None]


def test_pass_rates_are_corrected_where_hits_end_the_drawing() -> None:
    """One hit was wanted and came at the third draw: of the draws before it none passed."""
    table = drawn_table([(0, "miss", False), (0, "miss", False), (0, "hit", False)])
    sampling = Sampling(samples_per_prompt=1, target_hits=1, max_samples_per_prompt=9)

    assert pass_rates(table, sampling) == [0.0]
    assert pass_rates(table) == [pytest.approx(1 / 3)]


def drawn_table(rows: list[tuple[int, str | None, bool]]) -> pa.Table:
    """A judged table from the prompt, the kind (None is undecided) and whether it is the anchor, of each sample."""
    outcome = ["keep" if kind == "hit" else "undecided" if kind is None else "drop" for _, kind, _ in rows]
    return pa.table(
        {
            "prompt_id": pa.chunked_array([[str(prompt) for prompt, _, _ in rows]], pa.string()),
            "index": pa.chunked_array([list(range(len(rows)))], pa.int32()),
            "kind": pa.chunked_array([[kind for _, kind, _ in rows]], pa.string()),
            "outcome": pa.chunked_array([outcome], pa.string()),
            "anchor": pa.chunked_array([[anchor for _, _, anchor in rows]], pa.bool_()),
        }
    )
