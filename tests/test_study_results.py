"""The results of a study: tables for each family and for all, and notes on what could not be computed."""

import numpy as np

from helpers.studies import measures_of
from thresher.study.results import results


def test_several_families_have_rows_of_their_own_and_rows_for_all() -> None:
    study = results(measures_of(20, families=np.repeat(["cold", "hot"], 10)))

    assert [row.family for row in study.temperatures] == ["cold"] * 4 + ["hot"] * 4 + ["all"] * 4
    assert study.widest == "all"
    assert study.hypotheses[0].family == "all"


def test_notes_name_every_result_that_is_missing_and_its_cause() -> None:
    counts = {"judged": np.zeros((1, 4)), "counted_nats": np.zeros((1, 4))}
    bare = measures_of(1, counts=counts, changes=(), changed={}, near_looked=False)

    notes = results(bare, missing=["first"]).missing

    assert notes[0] == "first"
    for word in ("Nothing passed", "could not be judged", "near_miss", "log-probabilities", "changed prompts", "one prompt"):
        assert any(word in note for note in notes), word
