"""Duplicates within a run: in memory and through files the verdicts are the same."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from helpers import known
from helpers.released_runs import apples, asking_run, rollouts
from thresher.dedupe import within_run
from thresher.pool.run import open_run


@pytest.mark.slow
def test_through_files_the_verdicts_are_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both compare answers: what the model thought differs each time."""
    data = [row for who in ("Anna", "Berta", "Clara") for row in apples(10, 6, who)] + apples(30, 4)
    for number, row in enumerate(data):
        row["prompt"] += " " * (number % 5)
        row["completion"] = f"<think>Attempt {number}: {'well ' * number}</think>\n\n{row['completion']}"
    settings = {"within_prompt": None}
    plain = rollouts(asking_run(tmp_path, data, "plain", settings))
    calls: list[str] = []
    through = within_run.through_files

    def through_and_note(*arguments: Any) -> Any:
        calls.append("files")
        return through(*arguments)

    monkeypatch.setattr(within_run, "through_files", through_and_note)

    files = asking_run(tmp_path, data, "files", settings, run={"dedupe_gib": 1e-6})

    assert calls == ["files"]
    columns = ("sample_id", "kind", "reason", "nearest", "similarity", "multiplicity")
    assert [[row[name] for name in columns] for row in rollouts(files)] == [[row[name] for name in columns] for row in plain]
    assert Counter(row["kind"] for row in plain)["duplicate"] > 5
    assert not (files / "scratch").exists()


@pytest.mark.slow
def test_long_regular_texts_are_searched_through_files(tmp_path: Path) -> None:
    """Their file is small, for they repeat themselves, but a word of a million characters has a million shingles."""
    rows = [{"prompt": f"{number}?", "completion": f"{number}" + "x" * 1_000_000} for number in range(3)]
    run = open_run(asking_run(tmp_path, rows, "run", {"within_prompt": None}, filters=[{"name": "finished"}]))

    assert known(run.store.entry("samples/00000")).bytes < 100_000
    for gib, wanted in ((0.011, True), (0.012, False)):  # three million bytes of text, four times as many of shingles
        part = run.recipe.run.model_copy(update={"dedupe_gib": gib})
        assert within_run.needed(run.store, run.recipe.model_copy(update={"run": part})) is wanted
