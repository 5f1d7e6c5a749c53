"""Drift between two runs: rarely reported where there is none, and found where there is some."""

import csv
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers import known
from helpers.small_run import small_run
from thresher.auditing.compare import since
from thresher.auditing.drift import ShareSums, compared, drift, holm
from thresher.cli import main


def sums(n: Any, d: Any) -> Any:
    return ShareSums(len(n), n.sum(), d.sum(), (n * n).sum(), (n * d).sum(), (d * d).sum())


@pytest.mark.slow
def test_drift_is_rarely_reported_without_cause_and_found_with_one() -> None:
    """Draws of a prompt resemble each other: a plain two-proportion test would report drift far too often."""
    draw = np.random.default_rng(3)

    def share(prompts: Any, a: Any) -> Any:
        n = draw.integers(4, 17, prompts).astype(float)
        return sums(n, draw.binomial(n.astype(int), draw.beta(a, 1.5, prompts)).astype(float))

    wrong = [known(compared("x", share(60, 0.5), share(60, 0.5)).p) < 0.05 for _ in range(600)]
    found = [known(compared("x", share(60, 0.5), share(60, 2.0)).p) < 0.05 for _ in range(100)]

    assert 0.03 <= np.mean(wrong) <= 0.08
    assert np.mean(found) > 0.9


def test_holm_by_hand_and_few_prompts() -> None:
    few = compared("few", sums(np.ones(3), np.ones(3)), sums(np.ones(3), np.zeros(3)))
    assert (few.z, few.p, few.before, few.after) == (None, None, 1.0, 0.0)
    made = [
        compared(str(p), sums(np.ones(99), np.arange(99) % 2 * 1.0), sums(np.ones(99), np.arange(99) % 2 * 1.0)) for p in range(3)
    ]
    given = [one.__class__(one.of, 0, 0, 1.0, p, drifted=False) for one, p in zip(made, (0.04, 0.01, 0.03), strict=True)]

    assert [(entry.p, entry.drifted) for entry in holm([given[0], few, *given[1:]])] == [
        (pytest.approx(0.06), False),
        (None, False),
        (pytest.approx(0.03), True),
        (pytest.approx(0.06), False),
    ]


@pytest.mark.slow
def test_drift_between_runs_is_reported_per_filter(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = small_run(tmp_path / "good", [("sums", ["right", "right", "wrong", "cut"], None)] * 12)
    bad = small_run(
        tmp_path / "bad", [("sums", ["wrong", "wrong", "wrong", "right" if n % 2 else "wrong"], None) for n in range(12)]
    )

    found = {share.of: share for share in drift(bad, good)}

    assert list(found) == ["pass rate", "answer", "exact_duplicate", "finished"]
    assert (found["pass rate"].before, found["pass rate"].after) == (0.5, 0.125)
    assert found["pass rate"].drifted
    assert found["finished"].after == 0
    main(["audit", bad.root, "--against", good.root, "--csv"])
    rows = [row for row in csv.DictReader(io.StringIO(capsys.readouterr().out)) if row["table"] == "drift"]
    assert next((row["of"], row["before"], row["after"]) for row in rows) == ("pass rate", "0.5", "0.125")
    main(["audit", bad.root, "--against", good.root])
    assert "Drifted: pass rate 50.0 % to 12.5 %" in " ".join(capsys.readouterr().out.split())


@pytest.mark.slow
def test_drift_without_variance_and_of_undecided_samples_is_found(tmp_path: Path) -> None:
    """Where all prompts of a run agree there is no variance over prompts; undecided verdicts are compared as a share of their
    own."""
    fates = ("right", "wrong", "cut", "open")
    right, wrong, cut, unsure = (small_run(tmp_path / fate, [("sums", [fate] * 4, None)] * 12) for fate in fates)

    found = {share.of: share for share in drift(wrong, right)}
    assert (found["pass rate"].drifted, found["finished"].drifted) == (True, False)
    assert found["finished"].p == 1.0
    assert (found["exact_duplicate"].before, found["exact_duplicate"].after) == (0.0, None)
    assert {share.of for share in drift(cut, right) if share.drifted} == {"pass rate", "finished"}
    found = {share.of: share for share in drift(unsure, right)}
    assert (found["undecided by answer"].before, found["undecided by answer"].after) == (0.0, 1.0)
    assert found["undecided by answer"].drifted
    assert (found["pass rate"].before, found["pass rate"].after) == (1.0, None)
    few = small_run(tmp_path / "few", [("sums", ["wrong"] * 4, None)] * 7)
    assert known(since(few, right)).words.startswith("Nothing could be compared")
    unfinished = small_run(tmp_path / "unfinished", [("sums", ["right"], None)] * 20, stop_after=5)
    assert known(since(right, unfinished)).words.endswith("unfinished.")
