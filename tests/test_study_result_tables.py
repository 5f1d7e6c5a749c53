"""The rows of a study's tables."""

from dataclasses import replace

import numpy as np
import pytest

from helpers import known
from helpers.studies import CHANGED, measures_of
from thresher.study.results import results


def test_changes_that_move_more_answers_than_the_hottest_draws_are_beyond() -> None:
    all_moved = np.ones((20, 8))
    counts = {"departed": np.tile([0.0, 4, 8, 8], (20, 1))}
    model = measures_of(20, counts=counts, changed=dict.fromkeys(CHANGED, all_moved))
    (row,) = results(model).equivalent
    assert (row.beyond, row.temperature.value, row.moved.value) == (True, 1.5, 1.0)
    less = replace(model, changed=dict.fromkeys(CHANGED, all_moved * 0.375))
    (row,) = results(less).equivalent
    assert not row.beyond
    assert row.temperature.value == pytest.approx(0.65)


def test_shares_on_which_all_prompts_agree_have_wilsons_interval() -> None:
    failure = results(measures_of(20)).temperatures[1].failure
    assert failure.value == 1.0
    assert known(failure.interval)[0] == pytest.approx(0.839, abs=1e-3)
    one_departs = np.zeros((20, 4))
    one_departs[0, 1] = 1
    row = results(measures_of(20, counts={"departed": one_departs, "departed_judged": one_departs})).temperatures[1]
    assert row.right_where_departed.interval is None
