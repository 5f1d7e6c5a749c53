"""A file of a step appears complete, or not at all."""

from pathlib import Path

import numpy as np
import pytest

from thresher.dedupe.step_files import mapped_column, written_whole


def test_a_file_appears_when_it_is_complete(tmp_path: Path) -> None:
    target = tmp_path / "links" / "000000.npz"
    with written_whole(target) as unfinished:
        assert unfinished is not None
        unfinished.write_bytes(b"whole")
        assert not target.exists()

    assert target.read_bytes() == b"whole"
    with written_whole(target) as again:
        assert again is None


def test_after_an_error_nothing_is_left(tmp_path: Path) -> None:
    def tear() -> None:
        with written_whole(tmp_path / "members") as unfinished:
            assert unfinished is not None
            (unfinished / "file").write_text("half")
            raise ValueError("torn")

    with pytest.raises(ValueError, match="torn"):
        tear()

    assert list(tmp_path.iterdir()) == []


def test_the_work_of_the_first_worker_stays(tmp_path: Path) -> None:
    target = tmp_path / "members"
    with written_whole(target) as unfinished:
        assert unfinished is not None
        (unfinished / "file").write_text("second")
        target.mkdir()
        (target / "file").write_text("first")

    assert (target / "file").read_text() == "first"


def test_a_mapped_column_starts_with_zeros(tmp_path: Path) -> None:
    column = mapped_column(tmp_path / "column.npy", np.uint32, 5)
    column[2] = 7
    column.flush()

    assert np.load(tmp_path / "column.npy").tolist() == [0, 0, 7, 0, 0]
