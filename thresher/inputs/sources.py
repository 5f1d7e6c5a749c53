"""Rows to make prompts from: JSONL, Parquet and Arrow files, datasets, reasoning-gym families, grids of values.

Rows are read lazily, so memory does not grow with the size of a file. Each row comes with its place, for error messages:
`prompts/upper.jsonl:17` (lines count from 1), `capital.parquet row 5` (rows count from 0).
"""

import codecs
import itertools
import json
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from filters.reasoning_gym import EVALUATING
from schemas.prompt_sets import DatasetSource, GridSource, JsonlSource, ParquetSource, ReasoningGymSource, Source
from schemas.suggest import did_you_mean
from thresher.errors import SourceError

Row = dict[str, Any]
PlacedRows = Iterator[tuple[str, Row]]
"""Rows, each with its place."""

BATCH_ROWS = 4096
"""Rows of a Parquet or Arrow file that are in memory at a time."""

HASH_DEPENDENT = frozenset({
    "codeio", "isomorphic_strings", "knight_swap", "polynomial_multiplication", "ransom_note", "word_ladder",
})  # fmt: skip
"""Families of reasoning-gym 0.1.25 whose prompts change with PYTHONHASHSEED, whatever the seed."""


def rows(source: Source, base: Path) -> PlacedRows:
    """Yield (place, row) in the source's order. Paths are relative to `base`.

    Raises SourceError for a source that is missing, cannot be read or has no rows. A number may be NaN or infinite here:
    `json_value` refuses it where it is used.
    """
    name, placed_rows = _open(source, base)
    is_empty = True
    for placed_row in placed_rows:
        is_empty = False
        yield placed_row
    if is_empty:
        raise SourceError(f"{name} holds no rows")


def _open(source: Source, base: Path) -> tuple[str, PlacedRows]:
    """The source's name in errors, and its rows."""
    match source:
        case JsonlSource():
            return source.path, _jsonl(source.path, base)
        case ParquetSource():
            return source.path, _arrow(source.path, base)
        case DatasetSource():
            name = " ".join(filter(None, (source.path, source.config, source.split)))
            return name, _dataset(source, base, name)
        case ReasoningGymSource():
            return f"reasoning_gym {source.name}", _reasoning_gym(source, f"reasoning_gym {source.name}")
        case GridSource():
            combinations = enumerate(itertools.product(*source.fields.values()))
            return "grid", ((f"grid row {number}", dict(zip(source.fields, row, strict=True))) for number, row in combinations)


# -- files -------------------------------------------------------------------------------------------------------------


def parse_line(line: bytes, where: str) -> Row:
    """Parse one line of JSONL. Raises SourceError unless it is an object."""
    wanted = "wanted one JSON object per line"
    try:
        row = json.loads(line.decode())
    except UnicodeDecodeError as error:
        byte = f"byte 0x{line[error.start]:02x} in column {error.start + 1}"
        raise SourceError(f"{where}: not UTF-8: {byte}; save the file as UTF-8") from error
    except json.JSONDecodeError as error:
        raise SourceError(f"{where}: not JSON: {error.msg} in column {error.colno}; {wanted}") from error
    except (ValueError, RecursionError) as error:
        raise SourceError(f"{where}: not JSON that can be read: {error}; {wanted}") from error
    if not isinstance(row, dict):
        raise SourceError(f"{where}: not an object: found {type(row).__name__}; {wanted}")
    return row


def read_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield (number from 1, bytes) of each line that is not blank, without a byte order mark. Raises SourceError."""
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                content = (line.removeprefix(codecs.BOM_UTF8) if number == 1 else line).rstrip(b"\r\n")
                if content.strip():
                    yield number, content
    except OSError as error:
        raise SourceError(f"{path}: cannot be read: {error.strerror or error}") from error


def arrow_rows(path: Path, name: str) -> PlacedRows:
    """Yield the rows of a Parquet or Arrow IPC file; its first bytes say which it is. Raises SourceError.

    A value that Python has no type for, such as a date after the year 9999, becomes text. Arrow's JSON is parsed.
    """
    number = 0
    try:
        for batch in _batches(path, name):
            columns = [_values(column) for column in batch.columns]
            for values in zip(*columns, strict=True):
                yield f"{name} row {number}", dict(zip(batch.schema.names, values, strict=True))
                number += 1
    except (pa.ArrowException, OSError) as error:
        first_line = str(error).partition("\n")[0]
        raise SourceError(f"{name}: cannot be read from row {number} on; is it damaged? {first_line}") from error


def _batches(path: Path, name: str) -> Iterator[pa.RecordBatch]:
    with path.open("rb") as file:
        magic = file.read(6)
    if magic.startswith(b"PAR1"):
        with pq.ParquetFile(path) as parquet:
            yield from parquet.iter_batches(BATCH_ROWS)
    elif magic == b"ARROW1":
        with pa.memory_map(str(path)) as mapped, pa.ipc.open_file(mapped) as reader:
            yield from (reader.get_batch(number) for number in range(reader.num_record_batches))
    elif magic.startswith(b"\xff\xff\xff\xff"):  # A stream, as `datasets` stores it.
        with pa.memory_map(str(path)) as mapped, pa.ipc.open_stream(mapped) as reader:
            yield from reader
    else:
        raise SourceError(f"{name}: neither Parquet nor Arrow IPC: it starts with {magic!r}")


def _values(column: pa.Array) -> list[Any]:
    try:
        values: list[Any] = column.to_pylist()
    except (ValueError, OverflowError):
        values = column.cast(pa.string()).to_pylist()
    if isinstance(column.type, pa.JsonType):
        return [None if value is None else json.loads(value) for value in values]
    return values


def _existing(path: str, base: Path) -> Path:
    file = base / path
    if not file.exists():
        hint = did_you_mean(file.name, (sibling.name for sibling in file.parent.glob("*")))
        raise SourceError(f"{path}: no such file; looked for {file}, because paths are relative to the recipe{hint}")
    return file


def _jsonl(path: str, base: Path) -> PlacedRows:
    for number, line in read_lines(_existing(path, base)):
        yield f"{path}:{number}", parse_line(line, f"{path}:{number}")


def _arrow(path: str, base: Path) -> PlacedRows:
    root = _existing(path, base)
    files = sorted(root.rglob("*.parquet")) if root.is_dir() else [root]
    if not files:
        raise SourceError(f"{path}: the directory holds no *.parquet file")
    for file in files:
        yield from arrow_rows(file, str(Path(path) / file.relative_to(root)))


# -- datasets and reasoning-gym ------------------------------------------------------------------------------------------


def _dataset(source: DatasetSource, base: Path, name: str) -> PlacedRows:
    try:
        for number, row in enumerate(_loaded(source, base, name)):
            yield f"{name} row {number}", dict(row)
    except SourceError:
        raise
    except Exception as error:  # datasets passes on the errors of many libraries.
        message = " ".join(str(error).split())[:400].rstrip(".")
        raise SourceError(
            f"{name}: cannot be loaded: {type(error).__name__}: {message}; "
            "check path, config, split and revision, and for the Hub HF_TOKEN and HF_ENDPOINT"
        ) from error


def _loaded(source: DatasetSource, base: Path, name: str) -> Any:
    import datasets

    local = base / source.path
    if local.is_file():
        raise SourceError(f"{source.path}: wanted a dataset, found a file; read it with `kind: jsonl` or `kind: parquet`")
    if not local.is_dir():
        if source.path.startswith((".", "/", "~")) or source.path.count("/") > 1:
            raise SourceError(f"{source.path}: no such directory, and no Hub id (org/name); looked for {local}")
        return datasets.load_dataset(source.path, source.config, split=source.split, revision=source.revision)
    if (local / "dataset_dict.json").exists():
        saved = datasets.load_from_disk(str(local))
        if source.split not in saved:
            raise SourceError(f"{name}: no such split{did_you_mean(source.split, saved)}; it has {', '.join(saved)}")
        return saved[source.split]
    if (local / "state.json").exists():
        return datasets.load_from_disk(str(local))
    return datasets.load_dataset(str(local), source.config, split=source.split)


def _reasoning_gym(source: ReasoningGymSource, name: str) -> PlacedRows:
    """Yield the items in order; each is a function of seed + index and the config."""
    if source.name in EVALUATING:
        raise SourceError(f"{name}: refused, because its scorer runs answers as code; choose another family")
    # The interpreter's own flag: setting PYTHONHASHSEED after the start has no effect.
    if source.name in HASH_DEPENDENT and sys.flags.hash_randomization:
        raise SourceError(f"{name}: its prompts change with Python's hash seed; start thresher with PYTHONHASHSEED=0")
    try:
        import reasoning_gym
        from reasoning_gym.factory import DATASETS
    except ImportError as error:
        raise SourceError(f"{name}: reasoning-gym is missing ({error}); pip install 'thresher[reasoning]'") from error
    if source.name not in DATASETS:
        raise SourceError(f"{name}: no such family{did_you_mean(source.name, DATASETS)}")
    # Its __version__ says 0.1.19 in 0.1.25.
    source_facts = {"name": source.name, "config": source.config, "seed": source.seed, "version": version("reasoning-gym")}
    try:
        items = reasoning_gym.create_dataset(source.name, seed=source.seed, size=source.size, **source.config)
        for index in range(source.size):
            item = items[index]
            origin = source_facts | {"index": index}
            yield f"{name} row {index}", {"question": item["question"], "answer": item["answer"], "reasoning_gym": origin}
    except Exception as error:  # A family checks its config by assertions, or not at all.
        raise SourceError(f"{name}: config {source.config}: {type(error).__name__}: {error}") from error
