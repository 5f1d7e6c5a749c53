"""Finds the files that a path names: one file, all files of a folder, or those that a pattern such as `data/*.jsonl` matches.

In folders and patterns, names that begin with a dot or an underscore and checksums (.crc) are no data, as for Spark and Arrow:
macOS writes `._x.parquet` beside x.parquet, Spark writes _SUCCESS.
"""

import glob
import logging
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from filters import trust
from schemas.suggest import did_you_mean
from thresher.errors import SourceError

log = logging.getLogger(__name__)

PARQUET, ARROW, JSONL = (".parquet", ".pq"), (".arrow", ".feather"), (".jsonl", ".ndjson")
SPLITS = "dataset_dict.json"
"""What save_to_disk writes for a DatasetDict, beside the folders of its splits."""
COMPRESSED = ("", ".gz", ".zst", ".bz2", ".xz")
KINDS = {"Parquet": PARQUET, "Arrow": ARROW, "JSONL": tuple(kind + packed for kind in JSONL for packed in COMPRESSED)}
"""The endings of files of each kind, in lower case. They choose files of a folder; what a file holds, its content says."""
TABLES = ("Parquet", "Arrow")
_COMPANIONS = {".md", ".txt", ".yaml", ".yml", ".py", ".lock"}
"""Endings of files that lie beside data and are none."""
_COMPANION_FILES = {"LICENSE", "README", "dataset_info.json", "dataset_infos.json", "state.json", "summary.json"}
_PATTERN = re.compile(r"[*?[]")


class NamedFile(NamedTuple):
    """A file, and its names in messages."""

    path: Path
    name: str
    """Its path inside the folder, or from the first folder that the pattern leaves open."""
    shown: str
    """The user's path to it."""


def named_files(given: str | Path, base: Path = Path(), kinds: Iterable[str] = tuple(KINDS)) -> list[NamedFile]:
    """The files that `given` names, each once, sorted. A path is relative to `base`; in a folder, those of one of the `kinds` are
    taken. Raises SourceError where there is none, and for a folder with files of several kinds."""
    path, text = base / given, str(given)
    if "://" in text:
        raise SourceError(f"{text}: wanted a path on this machine, found a URL; copy the files here first")
    if (path / SPLITS).exists():
        raise SourceError(f"{text}: holds several splits, which save_to_disk wrote; name one of their folders")
    if (path / "_delta_log").exists():
        raise SourceError(f"{text}: is a Delta table, whose log says which of its files count; export it to Parquet")
    if path.is_dir():
        return _filled(_within(_named(_of_kinds(text, path, kinds), path, text), path))
    if path.exists():
        if not path.is_file():
            raise SourceError(f"{text}: wanted a file, found a pipe or a device; write its content to a file first")
        return [NamedFile(path, path.name, text)]
    if not is_pattern(text):
        hint = did_you_mean(path.name, (sibling.name for sibling in path.parent.glob("*")))
        relative = f"; looked for {path}, because paths are relative to the recipe" if base.parts else ""
        raise SourceError(f"{text}: no such file{relative}{hint}")
    return _filled(_matched(text, base, kinds))


def _filled(files: list[NamedFile]) -> list[NamedFile]:
    """Warn of files of no bytes among others, as a copy leaves that was cut off. Raises SourceError for pipes and devices."""
    if odd := next((file for file in files if not file.path.is_file()), None):
        raise SourceError(f"{odd.shown}: wanted a file, found a pipe or a device; name those you mean by a pattern")
    for file in files if len(files) > 1 else ():
        if not file.path.stat().st_size:
            _warn_once(f"{file.shown}: holds no rows")
    return files


def _within(files: list[NamedFile], folder: Path) -> list[NamedFile]:
    """The files, unless a link in the folder leads out of it without the user's consent (filters.trust): the folder may come from
    others. The Hub's cache is made of such links. Raises SourceError."""
    cache = Path(os.environ.get("HF_HUB_CACHE") or Path(os.environ.get("HF_HOME") or "~/.cache/huggingface", "hub")).expanduser()
    of_hub = [cache] if Path(os.path.realpath(folder)).is_relative_to(os.path.realpath(cache)) else []
    try:
        refused = trust.first_refused((file.path for file in files), folder, *of_hub)
    except trust.ConfigError as error:
        raise SourceError(str(error)) from error
    if refused is not None:
        raise SourceError(refused)
    return files


def refuse_links(folder: Path) -> None:
    """Raise SourceError where a link in a folder of data leads out of it without the user's consent, also one in a hidden folder
    or to a hidden file: the card of a dataset may name those."""
    links: list[Path] = []
    seen = {os.path.realpath(folder)}
    for inside, folders, files in os.walk(folder, followlinks=True):
        links += (path for name in (*folders, *files) if (path := Path(inside, name)).is_symlink())
        folders[:] = [name for name in folders if os.path.realpath(os.path.join(inside, name)) not in seen]
        seen.update(os.path.realpath(os.path.join(inside, name)) for name in folders)
    _within([NamedFile(link, link.name, str(link)) for link in links], folder)


def is_pattern(text: str) -> bool:
    """Whether a path has the marks of a pattern: * ? or [."""
    return _PATTERN.search(text) is not None


def all_named(given: Iterable[str | Path]) -> list[NamedFile]:
    """The files that several paths name, each once. Raises SourceError."""
    return _each_once(file for path in given for file in named_files(path))


def files_below(given: str, base: Path) -> list[NamedFile]:
    """All files in a folder that are not hidden, of any kind, sorted. Raises SourceError."""
    return _within(_named(_below(base / given), base / given, given), base / given)


def _named(files: Sequence[Path], folder: Path, shown: str) -> list[NamedFile]:
    inner = [(file, _inside(file, folder)) for file in files]
    return [NamedFile(file, name, f"{shown.rstrip('/')}/{name}") for file, name in inner]


def _matched(pattern: str, base: Path, kinds: Iterable[str]) -> list[NamedFile]:
    """The files that a pattern matches, and those in the folders that it matches."""
    parts = Path(pattern).parts
    fixed = next(number for number, part in enumerate(parts) if is_pattern(part))
    shown, rest = Path(*parts[:fixed]), str(Path(*parts[fixed:]))
    root = base / shown
    wants_underscores = any(part.startswith("_") for part in parts[fixed:])
    found: list[Path] = []
    for match in sorted(glob.glob(rest, root_dir=root, recursive=True)):
        if _is_data(Path(match), underscores=wants_underscores):
            file = root / match
            found += _of_kinds(str(shown / match), file, kinds, wanted=False) if file.is_dir() else [file]
    nearest = sorted(found, key=lambda file: (len(file.parts), file))  # not through a link that leads back
    named = (NamedFile(file, _inside(file, root), str(shown / _inside(file, root))) for file in nearest)
    files = _within(sorted(_each_once(named), key=lambda file: file.path), root)
    if not files:
        raise SourceError(f"{pattern}: no file matches this pattern; looked in {root.absolute()}")
    return files


def _each_once(files: Iterable[NamedFile]) -> list[NamedFile]:
    """A link and its target are one file."""
    once: dict[str, NamedFile] = {}
    for file in files:
        once.setdefault(os.path.realpath(file.path), file)
    return list(once.values())


def _is_data(path: Path, *, underscores: bool = False) -> bool:
    hidden = any(part.startswith("." if underscores else (".", "_")) for part in path.parts)
    return not hidden and path.suffix.lower() != ".crc"


def _inside(file: Path, folder: Path) -> str:
    return file.relative_to(folder).as_posix()


def _below(folder: Path) -> list[Path]:
    """All files of data in a folder and the folders in it, sorted. Raises SourceError where one of those cannot be listed."""

    def fail(error: OSError) -> None:
        raise SourceError(f"{error.filename}: cannot be listed: {error.strerror}")

    def walk() -> Iterator[Path]:
        seen = {os.path.realpath(folder)}
        for name, folders, files in os.walk(folder, followlinks=True, onerror=fail):
            inner = {sub: os.path.realpath(Path(name) / sub) for sub in sorted(folders) if _is_data(Path(sub))}
            folders[:] = [sub for sub, real in inner.items() if real not in seen]
            seen.update(inner.values())
            yield from (Path(name) / file for file in files if _is_data(Path(file)))

    found = {os.path.realpath(file): file for file in sorted(walk(), reverse=True)}
    return sorted(found.values())


def _of_kinds(shown: str, top: Path, kinds: Iterable[str], *, wanted: bool = True) -> list[Path]:
    """The files in the folder `top` that are of the only kind that there is. Raises SourceError for several, and for none if one
    is `wanted`."""
    files = _below(top)
    chosen = {kind: [file for file in files if file.name.lower().endswith(KINDS[kind])] for kind in kinds}
    there = {kind: of_kind for kind, of_kind in chosen.items() if of_kind}
    if len(there) > 1:
        counts = " and ".join(f"{len(of_kind)} {kind}" for kind, of_kind in there.items())
        ending = next(iter(there.values()))[0].suffix
        raise SourceError(f"{shown}: holds {counts} files; name those you mean by a pattern, such as {shown}/*{ending}")
    if not there and wanted:
        endings = " or ".join(f"*{ending}" for kind in kinds for ending in KINDS[kind][:1])
        raise SourceError(f"{shown}: the directory holds no {endings} file")
    kind, taken = next(iter(there.items()), ("", []))
    left = (file for file in set(files) - set(taken) if file.name not in _COMPANION_FILES)
    others = sorted({file.suffix.lower() or "no ending" for file in left} - _COMPANIONS)
    if taken and others:
        _warn_once(f"{shown}: only its {kind} files are read, and none with the endings {', '.join(others)}")
    inner = {part for file in taken for part in file.relative_to(top).parent.parts if "=" in part}
    if inner:
        _warn_once(f"{shown}: columns in the names of its folders, such as {min(inner)}, are not read")
    return taken


@lru_cache(maxsize=256)
def _warn_once(message: str) -> None:
    """A folder is listed for its hash, and again for its rows."""
    log.warning(message)
