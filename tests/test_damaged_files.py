"""Any file of a finished run, or of a repository in a folder, that is damaged: it is healed, or named with what to do."""

import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from helpers import interleaved
from thresher.cli import main
from thresher.errors import StoreError
from thresher.pool.run import open_run

pytestmark = pytest.mark.slow  # each makes a run again

Damage = Callable[[bytes], bytes]


def flipped(data: bytes) -> bytes:
    """Another byte in the middle; the size stays."""
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 0x55]) + data[middle + 1 :]


def of_other_shape(data: bytes) -> bytes:
    """JSON with the same keys, and values of other types in them."""
    fields = json.loads(data)
    others = {dict: {"x": "x"}, list: [7], str: 7, int: "x", bool: "x"}
    return json.dumps({name: others.get(type(value)) for name, value in fields.items()}).encode()


DAMAGES: dict[str, Damage] = {
    "flipped": flipped,
    "cut in half": lambda data: data[: len(data) // 2],
    "empty": lambda _: b"",
    "of another shape": of_other_shape,
}
RUN_FILES = (
    "run.json", "prompts.json", "prompts.parquet", "samples/00001.json", "samples/00001.parquet", "verdicts/00001.json",
    "verdicts/00001.parquet", "corpus/00-00001.json", "corpus/00-00001.parquet", "judged/00001.json", "judged/00001.parquet",
    "audited/audit.json", "dataset.json", "dataset/README.md", "dataset/sft/train/*.parquet", "published.json", "begun.json",
    "writer/*.json",
)  # fmt: skip
"""One of each kind."""
KEPT = ("prompts.parquet", "samples/*.parquet", "verdicts/*.parquet", "corpus/*.parquet", "dataset/*/*/*.parquet")
"""What a healed run has as it was."""
REPOSITORY_FILES = (
    "README.md", "sft/train/*.parquet", "thresher/card.md", "thresher/manifest.json", "thresher/log/000001.json"
)  # fmt: skip


def pairs(names: Sequence[str]) -> list[tuple[str, str]]:
    """What is done to which files: to each an equal-sized change, and in turn what cuts it off or empties it."""
    cut = [(name, ("cut in half", "empty")[number % 2]) for number, name in enumerate(names)]
    shapes = [(name, "of another shape") for name in names if name.endswith(".json")]
    return [*((name, "flipped") for name in names), *cut, *shapes]


UNSEEN = {("flipped", "README.md"), ("flipped", "dataset/README.md"), ("cut in half", "dataset/README.md")}
"""What a person may have written: kept. Of that of a run the last lines say so."""


@contextmanager
def damaged(folder: Path, name: str, damage: Damage) -> Iterator[Path]:
    """One file of a folder is damaged, its time is that at which it was written; the folder is restored afterwards."""
    (path,) = folder.glob(name)
    data, status = path.read_bytes(), path.stat()
    changed = damage(data)
    assert changed not in (None, data)
    copy = folder.with_name("copy")
    shutil.copytree(folder, copy)
    try:
        path.write_bytes(changed)
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
        yield path
    finally:
        shutil.rmtree(folder)
        copy.rename(folder)


def files(folder: Path, *patterns: str) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for pattern in patterns for path in sorted(folder.glob(pattern))}


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a recipe, its finished run, and the repository in which it is published."""
    folder = tmp_path_factory.mktemp("damage")
    interleaved.write_inputs(folder)
    text = (folder / "recipe.yaml").read_text().replace("within_run: null", "within_run: 0.7")
    gates = "{hits: 0, self_check: false, pass_rate_drop: 1, diversity_drop: 1}"
    (folder / "recipe.yaml").write_text(f"{text}publish: {{repo: {folder / 'repository'}, gates: {gates}}}\n")
    assert run(folder) == 0
    return folder


def run(folder: Path) -> int:
    return main(["run", str(folder / "recipe.yaml"), "--out", str(folder / "run"), "--no-prefect"])


@pytest.mark.parametrize(("name", "damage"), pairs(RUN_FILES))
def test_a_damaged_file_of_a_run_is_healed_or_named(
    published: Path, capsys: pytest.CaptureFixture[str], name: str, damage: str
) -> None:
    before, released = files(published / "run", *KEPT), files(published / "repository", "*/*/*.parquet", "README.md")
    with damaged(published / "run", name, DAMAGES[damage]) as path:
        status = run(published)
        said = capsys.readouterr()

        assert status == 0 or (status == 1 and str(path) in said.err), said.err
        if status == 0:
            assert files(published / "run", *KEPT) == before
            assert open_run(published / "run").store.entry("dataset") is not None
        if (damage, name) in UNSEEN:
            assert f"{path}: changed since it was written" in said.out
        assert files(published / "repository", "*/*/*.parquet", "README.md") == released


@pytest.mark.parametrize(("name", "damage"), pairs(REPOSITORY_FILES))
def test_a_damaged_file_of_a_repository_is_healed_or_named(
    published: Path, capsys: pytest.CaptureFixture[str], name: str, damage: str
) -> None:
    repository = published / "repository"
    before = files(repository, "*/*/*.parquet", "README.md", "thresher/*.*")
    with damaged(repository, name, DAMAGES[damage]) as path:
        status = main(["publish", str(published / "run"), "--repo", str(repository)])
        said = capsys.readouterr().err
        name_there = str(path.relative_to(repository))

        assert status == 0 or (status == 1 and name_there in said and "restore" in said), said
        if status == 0 and (damage, name) not in UNSEEN:
            assert files(repository, "*/*/*.parquet", "README.md", "thresher/*.*") == before


def test_a_view_of_a_damaged_dataset_is_not_read(published: Path) -> None:
    with damaged(published / "run", "dataset/sft/train/*.parquet", flipped), pytest.raises(StoreError, match="damaged"):
        list(open_run(published / "run").view("sft"))
