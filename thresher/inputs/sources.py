"""Rows to make prompts from: JSONL, Parquet and Arrow files, datasets, reasoning-gym families, grids of values.

Rows are read lazily, so memory does not grow with the size of a file. Each row comes with its place, for error messages:
`prompts/upper.jsonl:17` (lines count from 1), `capital.parquet row 5` (rows count from 0).
"""

import codecs
import itertools
import json
import logging
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from filters.reasoning_gym import EVALUATING
from schemas.prompt_sets import DatasetSource, GridSource, JsonlSource, ParquetSource, ReasoningGymSource, Source
from schemas.suggest import did_you_mean
from thresher.errors import SourceError

log = logging.getLogger(__name__)

Row = dict[str, Any]
PlacedRows = Iterator[tuple[str, Row]]
"""Rows, each with its place."""

BATCH_ROWS = 4096
"""Rows of a Parquet or Arrow file that are in memory at a time."""
MEDIA_ROWS = 16
"""Rows with images or sound that are in memory at a time."""

HASH_DEPENDENT = frozenset({
    "codeio", "isomorphic_strings", "knight_swap", "polynomial_multiplication", "ransom_note", "word_ladder",
})  # fmt: skip
"""Families of reasoning-gym 0.1.25 whose prompts change with PYTHONHASHSEED, whatever the seed."""


class NotRead:
    """The value of a column that is not read."""

    def __repr__(self) -> str:
        return "not read"


NOT_READ = NotRead()


@dataclass(frozen=True)
class Columns:
    """Which columns are read from Parquet and Arrow files and from datasets; the others are NOT_READ in each row.

    `needed` are read in any case. With `others`, so are all that hold no images or sound: columns of {bytes, path}, at any depth,
    as `datasets` stores them. Nothing is ever decoded from such bytes. A needed column that is nothing else, and is not among
    `chats`, is an error.
    """

    needed: frozenset[str] = frozenset()
    others: bool = True
    chats: frozenset[str] = frozenset()

    def chosen(self, schema: pa.Schema, name: str) -> list[str]:
        """The names of the columns to read. Raises SourceError."""
        for field in schema:
            if field.name in self.needed - self.chats and is_media(field.type):
                raise SourceError(
                    f"{name}: the column {field.name!r} holds images or sound ({field.type}), which cannot be text; "
                    "leave it out of template, system, reference and metadata"
                )
        return [
            field.name for field in schema
            if field.name in self.needed or (self.others and not is_media(field.type, anywhere=True))
        ]  # fmt: skip

    def left_out(self, schema: pa.Schema) -> list[str]:
        """The names of the columns that are not read because they hold images or sound."""
        return [
            field.name for field in schema
            if self.others and field.name not in self.needed and is_media(field.type, anywhere=True)
        ]  # fmt: skip


EVERY_COLUMN = Columns()


def is_media(kind: pa.DataType, *, anywhere: bool = False) -> bool:
    """Whether a column of this type holds files such as images: {bytes, path}, or lists of them; `anywhere` finds them among
    other values too."""
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return is_media(kind.value_type, anywhere=anywhere)
    if not pa.types.is_struct(kind):
        return False
    inner = {field.name: field.type for field in kind}
    if set(inner) == {"bytes", "path"} and (pa.types.is_binary(inner["bytes"]) or pa.types.is_large_binary(inner["bytes"])):
        return True
    return anywhere and any(is_media(each, anywhere=True) for each in inner.values())


def rows(source: Source, base: Path, columns: Columns = EVERY_COLUMN) -> PlacedRows:
    """Yield (place, row) in the source's order. Paths are relative to `base`.

    Raises SourceError for a source that is missing, cannot be read or has no rows. A number may be NaN or infinite here:
    `json_value` refuses it where it is used.
    """
    name, placed_rows = _open(source, base, columns)
    is_empty = True
    for placed_row in placed_rows:
        is_empty = False
        yield placed_row
    if is_empty:
        raise SourceError(f"{name} holds no rows")


def _open(source: Source, base: Path, columns: Columns) -> tuple[str, PlacedRows]:
    """The source's name in errors, and its rows."""
    match source:
        case JsonlSource():
            return source.path, _jsonl(source.path, base)
        case ParquetSource():
            return source.path, _arrow(source.path, base, columns)
        case DatasetSource():
            name = " ".join(filter(None, (source.path, source.config, source.split)))
            return name, _dataset(source, base, name, columns)
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


def arrow_rows(path: Path, name: str, columns: Columns = EVERY_COLUMN) -> PlacedRows:
    """Yield the rows of a Parquet or Arrow IPC file; its first bytes say which it is. Raises SourceError.

    A value that Python has no type for, such as a date after the year 9999, becomes text. Arrow's JSON is parsed.
    """
    number = 0
    try:
        for names, batch in _batches(path, name, columns):
            for row in _batch_rows(batch, names):
                yield f"{name} row {number}", row
                number += 1
    except (pa.ArrowException, OSError) as error:
        first_line = str(error).partition("\n")[0]
        raise SourceError(f"{name}: cannot be read from row {number} on; is it damaged? {first_line}") from error


def _batches(path: Path, name: str, columns: Columns) -> Iterator[tuple[list[str], pa.RecordBatch]]:
    """The names of all columns, and the chosen columns of each batch."""
    with path.open("rb") as file:
        magic = file.read(6)
    if magic.startswith(b"PAR1"):
        with pq.ParquetFile(path) as parquet:
            schema = parquet.schema_arrow
            chosen = _chosen(columns, schema, name)
            for batch in parquet.iter_batches(BATCH_ROWS, columns=chosen):
                yield schema.names, batch
    elif magic == b"ARROW1":
        with pa.memory_map(str(path)) as mapped, pa.ipc.open_file(mapped) as reader:
            chosen = _chosen(columns, reader.schema, name)
            for number in range(reader.num_record_batches):
                yield reader.schema.names, _selected(reader.get_batch(number), chosen)
    elif magic.startswith(b"\xff\xff\xff\xff"):  # A stream, as `datasets` stores it.
        with pa.memory_map(str(path)) as mapped, pa.ipc.open_stream(mapped) as reader:
            chosen = _chosen(columns, reader.schema, name)
            for batch in reader:
                yield reader.schema.names, _selected(batch, chosen)
    else:
        raise SourceError(f"{name}: neither Parquet nor Arrow IPC: it starts with {magic!r}")


def _chosen(columns: Columns, schema: pa.Schema, name: str) -> list[str]:
    """The names of the columns to read; logs those of images or sound that are not."""
    if unread := columns.left_out(schema):
        log.warning("%s: left out the columns of images or sound: %s", name, ", ".join(unread))
    return columns.chosen(schema, name)


def _selected(batch: pa.RecordBatch, chosen: list[str]) -> pa.RecordBatch:
    return batch if chosen == batch.schema.names else batch.select(chosen)


def _batch_rows(batch: pa.RecordBatch | pa.Table, names: list[str]) -> Iterator[Row]:
    """The rows of a batch, with NOT_READ for the columns among `names` that it lacks."""
    values = dict(zip(batch.schema.names, map(_values, batch.columns), strict=True))
    for number in range(batch.num_rows):
        yield {name: values[name][number] if name in values else NOT_READ for name in names}


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


def _arrow(path: str, base: Path, columns: Columns) -> PlacedRows:
    root = _existing(path, base)
    files = sorted(root.rglob("*.parquet")) if root.is_dir() else [root]
    if not files:
        raise SourceError(f"{path}: the directory holds no *.parquet file")
    for file in files:
        yield from arrow_rows(file, str(Path(path) / file.relative_to(root)), columns)


# -- datasets and reasoning-gym ------------------------------------------------------------------------------------------


def _dataset(source: DatasetSource, base: Path, name: str, columns: Columns) -> PlacedRows:
    try:
        loaded = _loaded(source, base, name)
        for number, row in enumerate(_dataset_rows(loaded, columns, name)):
            yield f"{name} row {number}", row
    except SourceError:
        raise
    except Exception as error:  # datasets passes on the errors of many libraries.
        message = " ".join(str(error).split())[:400].rstrip(".")
        raise SourceError(
            f"{name}: cannot be loaded: {type(error).__name__}: {message}; "
            "check path, config, split and revision, and for the Hub HF_TOKEN and HF_ENDPOINT"
        ) from error


def _dataset_rows(loaded: Any, columns: Columns, name: str) -> Iterator[Row]:
    """The rows of a dataset. Its own features decode the columns, except those with images or sound, which Arrow reads: bytes
    stay bytes."""
    schema = loaded.features.arrow_schema
    chosen = _chosen(columns, schema, name)
    raw = [column for column in chosen if is_media(schema.field(column).type, anywhere=True)]
    decoded = [column for column in chosen if column not in raw]
    empty = dict.fromkeys(schema.names, NOT_READ)
    plain = loaded.select_columns(decoded) if decoded else [{}] * len(loaded)
    if not raw:
        yield from (empty | row for row in plain)
        return
    batches = loaded.select_columns(raw).with_format("arrow").iter(batch_size=MEDIA_ROWS)
    inner = (row for table in batches for row in _batch_rows(table, raw))
    yield from (empty | row | media for row, media in zip(plain, inner, strict=True))


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
