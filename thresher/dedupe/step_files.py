"""The files of the out-of-core search: its plan, where each step keeps what it writes, and how a file appears complete.

    FOLDER/plan.json              scheme, threshold, memory and number of parts that the files below were made with
    FOLDER/parts/000000/          signatures of a part of the texts, one .npy a column    (thresher.dedupe.signed_texts)
    FOLDER/inside, equal, links   000000.npz: pairs of rows of one bucket                 (thresher.dedupe.duplicate_links)
    FOLDER/gone.npy               texts known to repeat another one (n,)
    FOLDER/members, chosen, found components of the links, and what each text repeats     (thresher.dedupe.components)

The files are deleted when the search is over.
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

ROW_BYTES = 64
"""Memory of a key or a link while it is sorted."""
STEPS = ("inside", "equal", "links", "members", "chosen", "found")
"""Folders that are removed when the plan changes; the signatures stay."""


class Plan(NamedTuple):
    """How the work on a folder is divided. A resumed search divides it in the same way."""

    folder: str
    threshold: float
    """Least Jaccard similarity of duplicates."""
    memory: int
    """Bytes that one function may use, about."""


@contextmanager
def written_whole(path: Path) -> Iterator[Path | None]:
    """Yield a temporary path to write a file or folder to; it is renamed to `path` at the end, so `path` appears complete or
    not at all. Yields None if `path` exists already."""
    if path.exists():
        yield None
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".", dir=path.parent, ignore_cleanup_errors=True) as scratch:
        unfinished = Path(scratch, path.name)
        if not path.suffix:
            unfinished.mkdir()
        yield unfinished
        try:
            unfinished.rename(path)
        except OSError:  # another worker wrote the same file first
            if not path.exists():
                raise


def mapped_column(path: Path, dtype: Any, rows: int) -> Any:
    """Create a file of one column (rows,) and map it into memory, filled with zeros."""
    return np.lib.format.open_memmap(path, "w+", dtype, (rows,))  # type: ignore[no-untyped-call]


def part_folder(folder: str, part: int) -> Path:
    """The folder of a part's signatures."""
    return Path(folder, "parts", f"{part:06d}")


def bucket_file(plan: Plan, step: str, bucket: int) -> Path:
    """The file that a step writes for one of its buckets."""
    return Path(plan.folder, step, f"{bucket:06d}.npz")


def files_of(folder: str, step: str) -> list[str]:
    """The finished files of a step, in order."""
    path = Path(folder, step)
    return sorted(str(file) for file in path.iterdir() if not file.name.startswith(".")) if path.exists() else []
