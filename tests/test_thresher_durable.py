from pathlib import Path

import pytest

from thresher import durable


def test_a_file_is_replaced_and_no_other_file_is_left(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    for content in (b"first", memoryview(b"second")):
        durable.replace_file(path, content)

    assert path.read_bytes() == b"second"
    assert list(tmp_path.iterdir()) == [path]


def test_a_failed_write_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "run.json"
    path.write_bytes(b"old")

    def disk_full(_: object) -> None:
        raise OSError("no space")

    monkeypatch.setattr(durable, "sync", disk_full)
    with pytest.raises(OSError, match="no space"):
        durable.replace_file(path, b"new")

    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
