"""Rows to make prompts from: JSONL, Parquet and Arrow files, datasets, reasoning-gym families, grids of values.

Rows are read as they are asked for, so memory is flat in the size of a file. Each comes with its place, for errors:
`prompts/upper.jsonl:17` (lines count from 1), `capital.parquet row 5` (rows count from 0).
"""

import base64
import codecs
import itertools
import json
import math
import sys
from collections.abc import Iterator
from datetime import date, time, timedelta
from decimal import Decimal
from importlib.metadata import version
from pathlib import Path
from typing import Any
from uuid import UUID

import pyarrow as pa
import pyarrow.parquet as pq

from filters.reasoning_gym import EVALUATING
from schemas.prompt_sets import DatasetSource, GridSource, JsonlSource, ParquetSource, ReasoningGymSource, Source
from schemas.suggest import did_you_mean
from thresher.errors import SourceError

Row = dict[str, Any]
Placed = Iterator[tuple[str, Row]]

BATCH_ROWS = 4096
"""Rows of a Parquet or Arrow file that are held at once."""

HASH_DEPENDENT = frozenset({
    "codeio", "isomorphic_strings", "knight_swap", "polynomial_multiplication", "ransom_note", "word_ladder",
})  # fmt: skip
"""Families of reasoning-gym 0.1.25 whose prompts change with PYTHONHASHSEED, whatever the seed."""


def rows(source: Source, base: Path) -> Placed:
    """Yield (where, row) in the source's order; `where` is the row's place. Paths are relative to `base`.

    Raises SourceError for what is missing, cannot be read or holds no rows. A number may be NaN or infinite here:
    `plain` refuses it where it is used.
    """
    called, found = _opened(source, base)
    is_empty = True
    for placed in found:
        is_empty = False
        yield placed
    if is_empty:
        raise SourceError(f"{called} holds no rows")


def _opened(source: Source, base: Path) -> tuple[str, Placed]:
    """What errors call the source, and its rows."""
    match source:
        case JsonlSource():
            return source.path, _jsonl(source.path, base)
        case ParquetSource():
            return source.path, _arrow(source.path, base)
        case DatasetSource():
            called = " ".join(filter(None, (source.path, source.config, source.split)))
            return called, _dataset(source, base, called)
        case ReasoningGymSource():
            return f"reasoning_gym {source.name}", _reasoning_gym(source, f"reasoning_gym {source.name}")
        case GridSource():
            every = enumerate(itertools.product(*source.fields.values()))
            return "grid", ((f"grid row {row}", dict(zip(source.fields, one, strict=True))) for row, one in every)


# -- values ------------------------------------------------------------------------------------------------------------


def plain(value: Any, where: str, *, finite: bool = True) -> Any:
    """Make a value one of JSON: dates and times become ISO 8601 text, durations seconds, bytes base64, decimals text,
    scalars of NumPy and Arrow their value. Raises SourceError for what JSON cannot hold.

    It holds no NaN and no infinity: they are refused or, unless `finite`, become the texts NaN, Infinity and -Infinity.
    """
    try:
        return _plain(value, where, finite)
    except RecursionError as error:
        raise SourceError(f"{where}: nested too deeply to be kept as JSON") from error


def text(value: str, where: str) -> str:
    """The same text. Raises SourceError for half a surrogate pair, which a JSON escape can spell and UTF-8 cannot."""
    try:
        value.encode()
    except UnicodeEncodeError as error:
        half = f"\\u{ord(value[error.start]):04x}"
        raise SourceError(f"{where}: {half} is half of a surrogate pair, which is no text; remove it") from error
    return str(value)


def _plain(value: Any, where: str, finite: bool) -> Any:
    match value:
        case None | bool():
            return value
        case str():
            return text(value, where)
        case int():
            return int(value)
        case float():
            if math.isfinite(value):
                return float(value)
            if finite:
                raise SourceError(f"{where}: {value} is no number in JSON; use null, or a text")
            return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
        case dict():
            return {text(str(key), where): _plain(inner, where, finite) for key, inner in value.items()}
        case list() | tuple():
            return [_plain(inner, where, finite) for inner in value]
        case date() | time():
            return value.isoformat()
        case timedelta():
            return value.total_seconds()
        case Decimal() | UUID():
            return str(value)
        case bytes():
            return base64.b64encode(value).decode()
        case pa.Scalar():
            return _plain(value.as_py(), where, finite)
    if type(value).__module__ == "numpy":
        return str(value) if type(value).__name__ == "datetime64" else _plain(value.tolist(), where, finite)
    raise SourceError(f"{where}: a {type(value).__name__} cannot be kept as JSON; leave the field out")


# -- files -------------------------------------------------------------------------------------------------------------


def parse_line(line: bytes, where: str) -> Row:
    """One line of JSONL. Raises SourceError that says what was found instead of an object."""
    wanted = "wanted one JSON object per line"
    try:
        row = json.loads(line.decode())
    except UnicodeDecodeError as error:
        found = f"byte 0x{line[error.start]:02x} in column {error.start + 1}"
        raise SourceError(f"{where}: not UTF-8: {found}; save the file as UTF-8") from error
    except json.JSONDecodeError as error:
        raise SourceError(f"{where}: not JSON: {error.msg} in column {error.colno}; {wanted}") from error
    except (ValueError, RecursionError) as error:
        raise SourceError(f"{where}: not JSON that can be read: {error}; {wanted}") from error
    if not isinstance(row, dict):
        raise SourceError(f"{where}: not an object: found {type(row).__name__}; {wanted}")
    return row


def lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """(number from 1, bytes) of each line that is not blank; a byte order mark is skipped. Raises SourceError."""
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                content = (line.removeprefix(codecs.BOM_UTF8) if number == 1 else line).rstrip(b"\r\n")
                if content.strip():
                    yield number, content
    except OSError as error:
        raise SourceError(f"{path}: cannot be read: {error.strerror or error}") from error


def arrow_rows(path: Path, called: str) -> Placed:
    """Rows of a Parquet or Arrow IPC file, told apart by their first bytes. Raises SourceError.

    A value that Python has no type for, such as a date past the year 9999, is given as text; Arrow's JSON is parsed.
    """
    number = 0
    try:
        for batch in _batches(path, called):
            columns = [_values(column) for column in batch.columns]
            for values in zip(*columns, strict=True):
                yield f"{called} row {number}", dict(zip(batch.schema.names, values, strict=True))
                number += 1
    except (pa.ArrowException, OSError) as error:
        found = str(error).partition("\n")[0]
        raise SourceError(f"{called}: cannot be read on from row {number}; is it damaged? {found}") from error


def _batches(path: Path, called: str) -> Iterator[pa.RecordBatch]:
    with path.open("rb") as file:
        magic = file.read(6)
    if magic.startswith(b"PAR1"):
        with pq.ParquetFile(path) as parquet:
            yield from parquet.iter_batches(BATCH_ROWS)
    elif magic == b"ARROW1":
        with pa.memory_map(str(path)) as mapped, pa.ipc.open_file(mapped) as reader:
            yield from (reader.get_batch(number) for number in range(reader.num_record_batches))
    elif magic.startswith(b"\xff\xff\xff\xff"):  # a stream: what `datasets` keeps on disk
        with pa.memory_map(str(path)) as mapped, pa.ipc.open_stream(mapped) as reader:
            yield from reader
    else:
        raise SourceError(f"{called}: neither Parquet nor Arrow IPC: it begins with {magic!r}")


def _values(column: pa.Array) -> list[Any]:
    try:
        values: list[Any] = column.to_pylist()
    except (ValueError, OverflowError):
        values = column.cast(pa.string()).to_pylist()
    if isinstance(column.type, pa.JsonType):
        return [None if value is None else json.loads(value) for value in values]
    return values


def _existing(path: str, base: Path) -> Path:
    found = base / path
    if not found.exists():
        hint = did_you_mean(found.name, (one.name for one in found.parent.glob("*")))
        raise SourceError(f"{path}: no such file; looked for {found}, as paths are relative to the recipe{hint}")
    return found


def _jsonl(path: str, base: Path) -> Placed:
    for number, line in lines(_existing(path, base)):
        yield f"{path}:{number}", parse_line(line, f"{path}:{number}")


def _arrow(path: str, base: Path) -> Placed:
    found = _existing(path, base)
    files = sorted(found.rglob("*.parquet")) if found.is_dir() else [found]
    if not files:
        raise SourceError(f"{path}: the directory holds no *.parquet file")
    for file in files:
        yield from arrow_rows(file, str(Path(path) / file.relative_to(found)))


# -- what others make --------------------------------------------------------------------------------------------------


def _dataset(source: DatasetSource, base: Path, called: str) -> Placed:
    try:
        for number, row in enumerate(_loaded(source, base, called)):
            yield f"{called} row {number}", dict(row)
    except SourceError:
        raise
    except Exception as error:  # datasets raises what the libraries below it raise, of many kinds
        said = " ".join(str(error).split())[:400].rstrip(".")
        raise SourceError(
            f"{called}: cannot be loaded: {type(error).__name__}: {said}; "
            "check path, config, split and revision, and for the Hub HF_TOKEN and HF_ENDPOINT"
        ) from error


def _loaded(source: DatasetSource, base: Path, called: str) -> Any:
    import datasets

    local = base / source.path
    if local.is_file():
        raise SourceError(f"{source.path}: wanted a dataset, found a file; read it by `kind: jsonl` or `kind: parquet`")
    if not local.is_dir():
        if source.path.startswith((".", "/", "~")) or source.path.count("/") > 1:
            raise SourceError(f"{source.path}: no such directory, and no Hub id (org/name); looked for {local}")
        return datasets.load_dataset(source.path, source.config, split=source.split, revision=source.revision)
    if (local / "dataset_dict.json").exists():
        saved = datasets.load_from_disk(str(local))
        if source.split not in saved:
            raise SourceError(f"{called}: no such split{did_you_mean(source.split, saved)}; there are {', '.join(saved)}")
        return saved[source.split]
    if (local / "state.json").exists():
        return datasets.load_from_disk(str(local))
    return datasets.load_dataset(str(local), source.config, split=source.split)


def _reasoning_gym(source: ReasoningGymSource, called: str) -> Placed:
    """Items in order from 0; each is a function of seed + index and the config."""
    if source.name in EVALUATING:
        raise SourceError(f"{called}: refused, as its scorer runs answers as code; choose another family")
    # The interpreter's own flag: setting the variable after its start has no effect.
    if source.name in HASH_DEPENDENT and sys.flags.hash_randomization:
        raise SourceError(f"{called}: its prompts change with Python's hash seed; start thresher with PYTHONHASHSEED=0")
    try:
        import reasoning_gym
        from reasoning_gym.factory import DATASETS
    except ImportError as error:
        raise SourceError(f"{called}: reasoning-gym is missing ({error}); pip install 'thresher[reasoning]'") from error
    if source.name not in DATASETS:
        raise SourceError(f"{called}: no such family{did_you_mean(source.name, DATASETS)}")
    # Its __version__ says 0.1.19 in 0.1.25.
    facts = {"name": source.name, "config": source.config, "seed": source.seed, "version": version("reasoning-gym")}
    try:
        made = reasoning_gym.create_dataset(source.name, seed=source.seed, size=source.size, **source.config)
        for index in range(source.size):
            item = made[index]
            row = {"question": item["question"], "answer": item["answer"], "reasoning_gym": facts | {"index": index}}
            yield f"{called} row {index}", row
    except Exception as error:  # a family checks its config by assertions, or not at all
        raise SourceError(f"{called}: config {source.config}: {type(error).__name__}: {error}") from error
