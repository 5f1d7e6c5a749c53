"""Rows to make prompts from: JSONL, Parquet and Arrow files, datasets, reasoning-gym families, grids of values.

Rows are read lazily, so memory does not grow with the size of a file. Each row comes with its place, for error messages:
`prompts/upper.jsonl:17` (lines count from 1), `capital.parquet row 5` (rows count from 0).
"""

import itertools
import logging
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow as pa

from filters.reasoning_gym import EVALUATING
from schemas.prompt_sets import DatasetSource, GridSource, JsonlSource, ParquetSource, ReasoningGymSource, Source
from schemas.suggest import did_you_mean
from thresher.errors import SourceError
from thresher.inputs.files.arrow_files import open_arrow_files
from thresher.inputs.files.arrow_values import python_values
from thresher.inputs.files.dataset_cards import check_folder, check_hub_card
from thresher.inputs.files.json_lines import Row, parse_line, read_lines
from thresher.inputs.files.named_files import TABLES, NamedFile, named_files
from thresher.inputs.files.saved_datasets import is_saved, load_saved

log = logging.getLogger(__name__)

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
    checks = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view)
    if set(inner) == {"bytes", "path"} and any(check(inner["bytes"]) for check in checks):
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


def arrow_rows(files: Sequence[NamedFile], name: str, columns: Columns = EVERY_COLUMN) -> Iterator[tuple[NamedFile, int, Row]]:
    """Yield (file, number, row) of Parquet or Arrow IPC files, which are one table: a column that a file lacks is null there.
    Rows of each file count from 0. Raises SourceError.

    A value that Python has no type for, such as a date after the year 9999, becomes text. Arrow's JSON is parsed.
    """
    unread: dict[str, None] = {}

    def choose(schema: pa.Schema, file: str) -> list[str]:
        unread.update(dict.fromkeys(columns.left_out(schema)))
        return columns.chosen(schema, file)

    table = open_arrow_files(files, choose)
    _log_unread(name, list(unread))
    for file, first, batch in table.batches(BATCH_ROWS):
        for number, row in enumerate(_batch_rows(batch, table.names), first):
            yield file, number, row


def _log_unread(name: str, unread: Sequence[str]) -> None:
    if unread:
        log.warning("%s: left out the columns of images or sound: %s", name, ", ".join(unread))


def _batch_rows(batch: pa.Table, names: Sequence[str]) -> Iterator[Row]:
    """The rows of a batch, with NOT_READ for the columns among `names` that it lacks."""
    values = {name: python_values(batch.column(name)) for name in batch.schema.names}
    for number in range(batch.num_rows):
        yield {name: values[name][number] if name in values else NOT_READ for name in names}


def _jsonl(path: str, base: Path) -> PlacedRows:
    for file in named_files(path, base, ("JSONL",)):
        for number, line in read_lines(file.path, file.shown):
            yield f"{file.shown}:{number}", parse_line(line, f"{file.shown}:{number}")


def _arrow(path: str, base: Path, columns: Columns) -> PlacedRows:
    if is_saved(base / path):
        raise SourceError(f"{path}: is a dataset that save_to_disk wrote; read it with `kind: dataset`")
    for file, number, row in arrow_rows(named_files(path, base, TABLES), path, columns):
        yield f"{file.shown} row {number}", row


# -- datasets and reasoning-gym ------------------------------------------------------------------------------------------


def _dataset(source: DatasetSource, base: Path, name: str, columns: Columns) -> PlacedRows:
    try:
        loaded = _loaded(source, base, name)
        for number, row in enumerate(_dataset_rows(loaded, columns, name)):
            yield f"{name} row {number}", row
    except SourceError:
        raise
    except Exception as error:  # datasets passes on the errors of many libraries.
        cause = error.__cause__ or error  # the first says no more than that there is a second
        message = " ".join(str(cause).split())[:400].rstrip(".")
        raise SourceError(
            f"{name}: cannot be loaded: {type(cause).__name__}: {message}; "
            "check path, config, split and revision, and for the Hub HF_TOKEN and HF_ENDPOINT"
        ) from error


def _dataset_rows(loaded: Any, columns: Columns, name: str) -> Iterator[Row]:
    """The rows of a dataset as Arrow holds them: bytes of images and sound stay bytes."""
    schema = loaded.features.arrow_schema
    _log_unread(name, columns.left_out(schema))
    chosen = columns.chosen(schema, name)
    if not chosen:
        yield from (dict.fromkeys(schema.names, NOT_READ) for _ in range(len(loaded)))
        return
    size = MEDIA_ROWS if any(is_media(schema.field(column).type, anywhere=True) for column in chosen) else BATCH_ROWS
    for table in loaded.select_columns(chosen).with_format("arrow").iter(batch_size=size):
        yield from _batch_rows(table, schema.names)


def _loaded(source: DatasetSource, base: Path, name: str) -> Any:
    import datasets

    local = base / source.path
    if local.is_file():
        raise SourceError(f"{source.path}: wanted a dataset, found a file; read it with `kind: jsonl` or `kind: parquet`")
    if not local.is_dir():
        if source.path.startswith((".", "/", "~")) or source.path.count("/") > 1:
            raise SourceError(f"{source.path}: no such directory, and no Hub id (org/name); looked for {local}")
        check_hub_card(source.path, source.revision)
        return datasets.load_dataset(source.path, source.config, split=source.split, revision=source.revision)
    if source.revision is not None:
        raise SourceError(f"{name}: revision {source.revision!r} of a directory, which has none; remove revision")
    if is_saved(local):
        return load_saved(local, name, source.config, source.split)
    check_folder(local)
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
