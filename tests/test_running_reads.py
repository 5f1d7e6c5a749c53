"""What a run costs in passes over its pool: it is audited once, and each file is read a few times."""

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml

from helpers.opens import Opens
from thresher.auditing import cache
from thresher.auditing.count_run import count
from thresher.cli import main
from thresher.pool.store import Store

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="inotify is of Linux")

MOST_READS = 4
PROMPTS, DRAWS = 40, 8


def written_recipe(folder: Path, **parts: Any) -> Path:
    questions = [{"question": f"What is 2 * {number}?", "answer": str(2 * number)} for number in range(PROMPTS)]
    answers = [
        {"prompt": row["question"], "completion": row["answer"] if draw % 3 else f"{draw} and no more"}
        for row in questions
        for draw in range(DRAWS)
    ]
    for name, rows in (("prompts", questions), ("answers", answers)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    recipe = {
        "name": "reads",
        "prompts": [{"family": "sums", "source": {"kind": "jsonl", "path": "prompts.jsonl"}, "reference": "answer"}],
        "engine": {"kind": "replay", "path": "answers.jsonl"},
        "sampling": {"samples_per_prompt": DRAWS},
        "run": {"shard_samples": 80, "filter_workers": 0},
        "filters": [{"name": "finished"}, {"name": "exact_answer"}],
        "publish": {"repo": str(folder / "released")},
    } | parts
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    return folder / "recipe.yaml"


def test_a_run_that_publishes_is_audited_once_and_reads_each_pool_file_four_times_at_most(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, run = written_recipe(tmp_path), tmp_path / "run"
    folders = [run / name for name in ("samples", "verdicts", "corpus", "judged")]
    for folder in folders:
        folder.mkdir(parents=True)
    audits = []

    def counted(*arguments: Any) -> Any:
        audits.append(arguments[0].root)
        return count(*arguments)

    bytes_read: Counter[str] = Counter()
    read_bytes = Store.read_bytes

    def read_and_count(store: Store, name: str) -> bytes:
        data = read_bytes(store, name)
        bytes_read[name] += len(data)
        return data

    monkeypatch.setattr(cache, "count", counted)
    monkeypatch.setattr(Store, "read_bytes", read_and_count)
    opens = Opens(folders)

    assert main(["run", str(recipe), "--out", str(run), "--no-prefect"]) == 0
    assert (tmp_path / "released" / "README.md").exists()
    assert audits == [str(run)]
    reads = opens.count()
    samples = {file: times for file, times in reads.items() if file.startswith("samples/")}
    assert len(samples) == len(list((run / "samples").glob("*.parquet"))) == 5
    assert max(reads.values()) <= MOST_READS, reads
    files = [file for folder in folders for file in folder.glob("*.parquet")]
    sizes = {str(file.relative_to(run)): file.stat().st_size for file in files}
    assert {name for name in sizes if name.startswith("samples/")} <= bytes_read.keys()
    assert [name for name, size in sizes.items() if bytes_read[name] > MOST_READS * size] == []


@pytest.mark.slow
def test_what_was_counted_is_not_counted_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe, run = written_recipe(tmp_path), tmp_path / "run"
    assert main(["run", str(recipe), "--out", str(run), "--no-prefect"]) == 0

    def never(*_: Any) -> Any:
        raise AssertionError("counted again")

    monkeypatch.setattr(cache, "count", never)

    assert main(["audit", str(run), "--json"]) == 0
    assert main(["publish", str(run), "--repo", str(tmp_path / "elsewhere")]) == 0
    with pytest.raises(AssertionError, match="counted again"):
        main(["audit", str(run), "--recount"])


def test_a_changed_file_is_counted_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe, run = written_recipe(tmp_path), tmp_path / "run"
    assert main(["run", str(recipe), "--out", str(run), "--no-prefect"]) == 0
    file = next((run / "verdicts").glob("*.parquet"))
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    capsys.readouterr()

    assert main(["audit", str(run)]) == 1
    assert "damaged" in capsys.readouterr().err
