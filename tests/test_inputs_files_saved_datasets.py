"""A dataset that save_to_disk wrote is read as what it is: its split and its config are those that were asked for."""

from pathlib import Path
from typing import Any

import pytest

from thresher.errors import SourceError
from thresher.inputs.files.saved_datasets import is_saved, load_saved
from thresher.inputs.tables import open_table


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import datasets

    folder, made = tmp_path_factory.mktemp("saved"), datasets.Dataset.from_dict({"n": [1, 2]})
    datasets.disable_progress_bars()
    made.save_to_disk(folder / "made")
    (folder / "hub").mkdir()
    made.to_parquet(folder / "hub" / "test.parquet")
    loaded = datasets.load_dataset(str(folder / "hub"), split="test")
    loaded.save_to_disk(folder / "loaded")
    datasets.DatasetDict({"train": made, "test": made.select([1])}).save_to_disk(folder / "dict")
    return folder


@pytest.mark.parametrize(
    ("name", "settings", "rows"),
    [
        ("made", {}, 2), ("made", {"split": "train"}, 2), ("loaded", {}, 2), ("loaded", {"split": "test"}, 2),
        ("loaded", {"config": "default", "split": "test"}, 2), ("dict", {}, 2), ("dict", {"split": "test"}, 1),
    ],
)  # fmt: skip
def test_what_was_saved_is_read(saved: Path, name: str, settings: dict[str, Any], rows: int) -> None:
    """By `dedupe`, too."""
    wanted = {"config": None, "split": None} | settings

    assert is_saved(saved / name)
    assert len(load_saved(saved / name, name, **wanted)) == rows
    assert sum(batch.num_rows for batch in open_table(str(saved / name), **wanted).batches()) == rows


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("made", {"split": "test"}, "x: wanted the split 'test' of a dataset that was saved without any; remove split"),
        ("made", {"config": "a"}, "x: wanted the config 'a' of a dataset that was saved without any; remove config"),
        ("loaded", {"split": "train"}, "x: wanted the split 'train' .*; set split to test, which it was saved from"),
        ("loaded", {"config": "b"}, "x: wanted the config 'b' .*; set config to default"),
        ("dict", {"split": "tests"}, r"x: no such split; did you mean test\?; it has train, test"),
        ("dict", {"config": "b"}, "x: wanted the config 'b' of a dataset that was saved without any"),
    ],
)
def test_what_was_not_saved_is_refused(saved: Path, name: str, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(SourceError, match=message):
        load_saved(saved / name, "x", **{"config": None, "split": None} | settings)


def test_an_incomplete_one_is_named(tmp_path: Path) -> None:
    (tmp_path / "state.json").write_text("{}")

    with pytest.raises(SourceError, match=r"dataset_info.json: cannot be read: .*; is the saved dataset complete"):
        load_saved(tmp_path, "x", None, None)
