"""Lines of JSON, plain and compressed."""

import bz2
import gzip
import json
import lzma
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from helpers.packed import zstd
from thresher.errors import SourceError
from thresher.inputs.files.json_lines import parse_json, parse_line, read_lines

LINES = [json.dumps({"n": n, "salt": random.Random(n).random()}).encode() for n in range(10_000)]
PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress, "zstd": zstd, "bzip2": bz2.compress, "xz": lzma.compress,
    "pzstd": lambda content: b"\x50\x2a\x4d\x18\x04\0\0\0abcd" + zstd(content),
}  # fmt: skip


@pytest.mark.parametrize("name", ["x.jsonl", "x.jsonl.gz"])
@pytest.mark.parametrize("packed", [None, *PACKERS])
def test_the_content_says_what_is_compressed(tmp_path: Path, packed: str | None, name: str) -> None:
    """Not the name. Several streams after each other are one file, as `cat` makes them."""
    lines = LINES[:600]
    pack = PACKERS[packed] if packed else bytes
    content = pack(b"\xef\xbb\xbf" + b"\n".join(lines[:500]) + b"\r\n\n") + pack(b"\n".join(lines[500:]))
    (tmp_path / name).write_bytes(content)

    read = list(read_lines(tmp_path / name))
    assert [line for _, line in read] == lines
    assert [number for number, _ in read][499:501] == [500, 502]


@pytest.mark.parametrize("packed", ["gzip", "zstd"])
def test_a_truncated_file_names_the_line_after_which_it_broke(tmp_path: Path, packed: str) -> None:
    content = PACKERS[packed](b"\n".join(LINES))
    (tmp_path / "x.jsonl").write_bytes(content[: len(content) // 2])
    read: list[tuple[int, bytes]] = []

    with pytest.raises(SourceError, match=r"own.jsonl: breaks after line [0-9]+: .*; is it complete") as raised:
        read.extend(read_lines(tmp_path / "x.jsonl", "own.jsonl"))
    assert [line for _, line in read] == LINES[: len(read)]
    assert f"after line {len(read)}:" in str(raised.value)
    assert len(read) > 2000


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (gzip.compress(b"{}", mtime=0) + b"more", "breaks after line 0: Not a gzipped file"),
        (b"\x28\xb5\x2f\xfdno zstd", "breaks after line 0: ZSTD decompress failed"),
        (b"PAR1...", "wanted JSON lines, found a Parquet file"),
        (b"ARROW1..", "wanted JSON lines, found an Arrow file"),
        (b"PK\x03\x04", "wanted JSON lines, found a zip archive"),
    ],
)
def test_other_content_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "x.jsonl").write_bytes(content)

    with pytest.raises(SourceError, match=rf"x.jsonl: {message}"):
        list(read_lines(tmp_path / "x.jsonl"))


@pytest.mark.parametrize("content", [b"", gzip.compress(b"", mtime=0), zstd(b"\n")])
def test_an_empty_file_has_no_lines(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.jsonl").write_bytes(content)

    assert list(read_lines(tmp_path / "x.jsonl")) == []


def test_a_folder_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"cannot be read: Is a directory"):
        list(read_lines(tmp_path))


def test_a_key_that_stands_twice_is_refused() -> None:
    """At any depth; one of the values would be lost."""
    with pytest.raises(SourceError, match=r"x:1: a repeated key: the key 'b' stands twice in one object; rename one of them"):
        parse_line(b'{"a": [{"b": 1, "b": 2}]}', "x:1")
    assert parse_json('{"a": [{"b": 1}, {"b": 2}]}') == {"a": [{"b": 1}, {"b": 2}]}
