"""Duplicates within a run: in memory and through files the verdicts are the same."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from helpers.released_runs import apples, asking_run, rollouts
from thresher.dedupe import within_run


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
