"""What became of each sample, by the verdicts of a run."""

from pathlib import Path

from helpers.small_run import judged_rows, small_run
from thresher.pool import judged

FATES = {
    "right": ("keep", "hit", "", None),
    "good": ("keep", "hit", "", None),
    "again": ("drop", "duplicate", "duplicate", "exact_duplicate"),
    "near": ("drop", "duplicate", "near_duplicate", "near"),
    "wrong": ("drop", "miss", "wrong_answer", "answer"),
    "cut": ("drop", None, "truncated", "finished"),
    "open": ("undecided", None, "no_reference", "answer"),
}


def test_the_first_filter_that_does_not_keep_a_sample_decides(tmp_path: Path) -> None:
    """Anchors are judged too, but by no filter that compares samples."""
    rows = judged_rows(small_run(tmp_path, corpus=True))

    assert len(rows) == 25
    for row in rows:
        fate = row["completion"].split()[0]
        assert (row["outcome"], row["kind"], row["reason"] or "", row["failed_filter"]) == FATES[fate]


def test_samples_that_could_not_be_read_or_drawn_are_undecided(tmp_path: Path) -> None:
    rows = judged_rows(small_run(tmp_path, [("sums", ["right", "torn"], None)], origin="brought"))

    assert [(row["outcome"], row["reason"] or "") for row in rows] == [("keep", ""), ("undecided", "unreadable_row")]


def test_shards_are_counted_as_far_as_they_are(tmp_path: Path) -> None:
    run = small_run(tmp_path, stop_after=2)

    assert (judged.shards(run.store), judged.sampled(run.store)) == (3, [0, 1])
    assert judged.shards(small_run(tmp_path / "other").store) == 3
