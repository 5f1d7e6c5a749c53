"""A path names files: one, those of a folder, those of a pattern; each once, and no hidden ones."""

from pathlib import Path

import pytest

from filters import trust
from thresher.errors import SourceError
from thresher.inputs.files.named_files import TABLES, all_named, files_below, is_pattern, named_files

DATA = ("b.jsonl", "a.jsonl.gz", "A.NDJSON", "sub/c.jsonl.zst", "x[1].jsonl")
NOISE = ("._a.jsonl", ".hidden/d.jsonl", "_SUCCESS", "_tmp/e.jsonl", ".a.jsonl.crc", "a.jsonl.crc", "README.md", "state.json")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in (*DATA, *NOISE):
        (tmp_path / "f" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "f" / name).write_text(name)
    (tmp_path / "f" / "link.jsonl").symlink_to(tmp_path / "f" / "b.jsonl")
    (tmp_path / "f" / "loop").symlink_to(tmp_path / "f")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "z.jsonl").touch()
    (tmp_path / "f" / "other").symlink_to(tmp_path / "other")
    return tmp_path


@pytest.mark.parametrize(
    ("given", "names"),
    [
        ("f", ["A.NDJSON", "a.jsonl.gz", "b.jsonl", "other/z.jsonl", "sub/c.jsonl.zst", "x[1].jsonl"]),
        ("f/", ["A.NDJSON", "a.jsonl.gz", "b.jsonl", "other/z.jsonl", "sub/c.jsonl.zst", "x[1].jsonl"]),
        ("f/*.jsonl", ["b.jsonl", "x[1].jsonl"]),
        ("f/**/*.jsonl*", ["a.jsonl.gz", "b.jsonl", "other/z.jsonl", "sub/c.jsonl.zst", "x[1].jsonl"]),
        ("f/s?b", ["sub/c.jsonl.zst"]),
        ("f/[ab]*", ["a.jsonl.gz", "b.jsonl"]),
        ("f/_t*/*", ["_tmp/e.jsonl"]),
        ("*/z.jsonl", ["other/z.jsonl"]),
        ("f/x[1].jsonl", ["x[1].jsonl"]),
        ("f/._a.jsonl", ["._a.jsonl"]),
    ],
)
def test_paths_name_files(folder: Path, given: str, names: list[str]) -> None:
    """Sorted; a link and its target are one file; a file of its own is taken whatever its name."""
    files = named_files(given, folder, ("JSONL",))

    assert [file.name for file in files] == names
    assert all(file.path.samefile(folder / file.shown) for file in files)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("f/*.parquet", r"^f/\*.parquet: no file matches this pattern; looked in .*/f$"),
        ("f/_SUC*/x", "no file matches this pattern"),
        ("f/.hidden", r"f/.hidden: the directory holds no \*.parquet or \*.arrow file"),
        ("f/b.json", r"^f/b.json: no such file; looked for .*, because paths are relative to the recipe; did you mean b.jsonl\?"),
    ],
)
def test_nothing_is_an_error(folder: Path, given: str, message: str) -> None:
    with pytest.raises(SourceError, match=message):
        named_files(given, folder, TABLES)


def test_a_folder_of_several_kinds_is_ambiguous(folder: Path) -> None:
    """The same rows may be in it twice."""
    (folder / "f" / "b.parquet").touch()

    with pytest.raises(SourceError, match=r"f: holds 1 Parquet and 6 JSONL files; name those you mean by a pattern"):
        named_files(folder / "f")
    assert len(named_files(folder / "f", kinds=TABLES)) == 1


def test_files_that_are_not_read_are_said_once(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Where they may be data; a README is none."""
    for name in ("b.csv", "c.parquet.gz", "lang=en/d.jsonl"):
        (folder / "f" / name).parent.mkdir(exist_ok=True)
        (folder / "f" / name).write_text("x")
    (folder / "other" / "z.jsonl").write_text("x")
    (folder / "f" / "empty.jsonl").touch()
    named_files(folder / "f")
    named_files(folder / "f")

    assert [record.getMessage() for record in caplog.records] == [
        f"{folder}/f: only its JSONL files are read, and none with the endings .csv, .gz",
        f"{folder}/f: columns in the names of its folders, such as lang=en, are not read",
        f"{folder}/f/empty.jsonl: holds no rows",
    ]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("s3://bucket/x.jsonl", "wanted a path on this machine, found a URL; copy the files here first"),
        ("saved", "saved: holds several splits, which save_to_disk wrote; name one of their folders"),
        ("delta", "delta: is a Delta table, whose log says which of its files count; export it to Parquet"),
    ],
)
def test_what_is_no_path_of_files_is_refused(tmp_path: Path, given: str, message: str) -> None:
    (tmp_path / "saved" / "train").mkdir(parents=True)
    (tmp_path / "delta" / "_delta_log").mkdir(parents=True)
    (tmp_path / "saved" / "dataset_dict.json").touch()
    (tmp_path / "saved" / "train" / "0.arrow").touch()

    with pytest.raises(SourceError, match=message):
        named_files(given, tmp_path)


def test_several_paths_are_each_file_once(folder: Path) -> None:
    named = all_named([folder / "f" / "b.jsonl", folder / "f" / "*.jsonl"])

    assert [file.name for file in named] == ["b.jsonl", "x[1].jsonl"]


def test_a_folder_that_cannot_be_listed_is_an_error(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """os.walk would leave it out."""
    import os

    scan = os.scandir

    def refuse(path: str) -> object:
        if str(path).endswith("sub"):
            raise PermissionError(13, "Permission denied", path)
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(SourceError, match=r"sub: cannot be listed: Permission denied"):
        named_files(folder / "f")


def test_a_pattern_has_marks() -> None:
    assert [is_pattern(text) for text in ("a*", "a?", "[a]", "a/b.jsonl")] == [True, True, True, False]


@pytest.mark.parametrize("given", ["f", "f/*/*.jsonl"])
def test_links_out_of_a_folder_need_consent(folder: Path, monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    """The folder may come from others. Links within it, into the working directory, and those of the Hub's cache are followed."""
    monkeypatch.delenv(trust.VARIABLE)
    monkeypatch.delenv(trust.ROOT)
    monkeypatch.chdir(folder / "f")
    with pytest.raises(SourceError, match=r"other/z\.jsonl lies outside .*--trust-code"):
        named_files(given, folder, ("JSONL",))
    with pytest.raises(SourceError, match="lies outside"):
        files_below("f", folder)
    monkeypatch.setenv("HF_HUB_CACHE", str(folder))
    assert "other/z.jsonl" in [file.name for file in named_files(given, folder, ("JSONL",))]
