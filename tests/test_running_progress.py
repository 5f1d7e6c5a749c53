"""Counts of a run while it is sampled."""

import io
import pickle

import pytest

from schemas.sampling import Sampling
from thresher.running.progress import Progress


def begun(**sampling: int) -> Progress:
    progress = Progress(io.StringIO())
    progress.begin(Sampling(**sampling), prompts=10, shards=5, missing=5, hits={})
    return progress


def test_a_shard_that_is_judged_again_replaces_its_hits() -> None:
    progress = begun(samples_per_prompt=3)
    for shard, hits in ((0, 5), (1, 2), (0, 4)):
        progress.judged(shard, hits)

    assert progress.hits == 6


def test_the_share_done_is_that_of_samples() -> None:
    """10 prompts, 3 samples and an anchor each."""
    progress = begun(samples_per_prompt=3)
    progress.drawn(10, 100)

    assert (progress.total, progress.done) == (40, 0.25)
    assert progress.line().startswith("10 of 40 samples (25 %)")


def test_the_share_done_of_an_adaptive_run_is_that_of_prompts() -> None:
    progress = begun(samples_per_prompt=3, target_hits=1)
    progress.drawn(40, 100)
    progress.closed(4)

    assert progress.done == pytest.approx(0.4)


def test_hits_wanted_are_nearer_than_samples() -> None:
    progress = begun(samples_per_prompt=3, target_rows=10)
    progress.drawn(4, 10)
    progress.judged(0, 5)

    assert progress.done == pytest.approx(0.5)


def test_another_process_counts_from_nothing_and_prints_nothing() -> None:
    progress = begun(samples_per_prompt=3)
    progress.drawn(10, 100)

    assert pickle.loads(pickle.dumps(progress)).samples == 0


def test_the_share_done_is_reported_at_the_end() -> None:
    reports: list[float] = []
    with Progress(io.StringIO(), lambda share, _: reports.append(share)) as progress:
        progress.begin(Sampling(samples_per_prompt=1), prompts=1, shards=1, missing=0, hits={})

    assert reports == []  # no engine was started


def test_hits_of_an_earlier_run_count_once() -> None:
    """A shard that is judged again replaces what it had."""
    progress = Progress()
    progress.begin(Sampling(samples_per_prompt=1), prompts=4, shards=2, missing=1, hits={0: 3, 1: 2})
    progress.judged(0, 3)
    progress.judged(1, 4)

    assert progress.hits == 7
