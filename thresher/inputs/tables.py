"""Tables of any format: reads Parquet, Arrow, JSONL and datasets of the Hub in batches, writes folders of Parquet files."""

import codecs
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from thresher.errors import SourceError
from thresher.inputs.files.arrow_files import is_arrow, open_arrow_files
from thresher.inputs.files.arrow_values import python_values
from thresher.inputs.files.column_types import conformed, unified
from thresher.inputs.files.dataset_cards import check_folder, check_hub_card
from thresher.inputs.files.json_lines import read_lines
from thresher.inputs.files.json_tables import open_json_table
from thresher.inputs.files.named_files import KINDS, NamedFile, is_pattern, named_files
from thresher.inputs.files.saved_datasets import is_saved, load_saved

BATCH_ROWS = 65_536
FILE_BYTES = 1 << 29
"""A Parquet file is closed once it is larger than this."""


@dataclass(frozen=True)
class TableSource:
    """A table on disk, which can be read any number of times."""

    name: str
    """As the user named it."""
    schema: pa.Schema
    """Its columns, without dictionaries and views."""
    read: Callable[[list[str] | None], Iterator[pa.Table]]
    """Reads the given columns, or all, of all rows in order."""

    def batches(self, columns: list[str] | None = None) -> Iterator[pa.Table]:
        """Yield the rows in order, in batches. Raises SourceError where the files cannot be read."""
        try:
            yield from self.read(columns)
        except (pa.ArrowException, OSError) as error:
            raise SourceError(f"{self.name}: cannot be read: {str(error).splitlines()[0]}") from error


def open_table(data: str, config: str | None, split: str | None) -> TableSource:
    """Open Parquet, Arrow or JSONL files (one, a folder of them, or those that a pattern matches), the directory of a dataset, or
    a dataset of the Hub. Files whose columns differ are one table: see thresher.inputs.files.

    A file has no config and no split, and they are not looked at. Raises SourceError.
    """
    path = Path(data)
    try:
        files = _files(data, path, config, split)
        if not files:
            return _dataset(data, path, config, split)
        kinds = {is_arrow(file.path) for file in files}
        if len(kinds) > 1:
            raise SourceError(f"{data}: holds both JSONL files and Parquet or Arrow files; name those you mean by a pattern")
        if kinds == {True}:
            arrow = open_arrow_files(files)
            return TableSource(data, arrow.schema, lambda columns: (batch.rows for batch in arrow.batches(BATCH_ROWS, columns)))
        if len(files) == 1 and _is_list(files[0]):
            return _dataset(data, path, config, split)
        lines = open_json_table(files)
        return TableSource(data, lines.schema, partial(lines.batches, BATCH_ROWS))
    except (pa.ArrowException, OSError) as error:
        raise SourceError(f"{data}: cannot be read: {str(error).splitlines()[0]}") from error


def _files(data: str, path: Path, config: str | None, split: str | None) -> list[NamedFile]:
    """The files of a table that is no dataset; none where `datasets` reads it."""
    if path.is_file():
        return named_files(data)
    if path.is_dir():
        is_dataset = config is not None or split is not None or _has_card(path) or is_saved(path)
        has_files = any(file.name.lower().endswith(sum(KINDS.values(), ())) for file in path.iterdir())
        return [] if is_dataset or not has_files else named_files(data)
    return named_files(data) if is_pattern(data) or path.name.lower().endswith(sum(KINDS.values(), ())) else []


def _has_card(folder: Path) -> bool:
    """Whether a folder has a card whose front matter may say what its files are."""
    try:
        return (folder / "README.md").read_bytes()[:8].removeprefix(codecs.BOM_UTF8).startswith(b"---")
    except OSError:
        return False


def _is_list(file: NamedFile) -> bool:
    """Whether a file is one JSON list, which `datasets` reads."""
    return next((line.lstrip()[:1] == b"[" for _, line in read_lines(file.path, file.shown)), False)


def _dataset(data: str, path: Path, config: str | None, split: str | None) -> TableSource:
    import datasets

    datasets.disable_progress_bars()
    try:
        if is_saved(path):
            loaded = load_saved(path, data, config, split)
        elif path.is_file():
            loaded = datasets.load_dataset("json", data_files=str(path), split="train")
        else:
            check_folder(path) if path.is_dir() else check_hub_card(data, None)
            loaded = datasets.load_dataset(data, config, split=split or "train")
    except (ValueError, FileNotFoundError, RuntimeError, datasets.exceptions.DatasetGenerationError) as error:
        cause = error.__cause__ or error
        raise SourceError(f"{data}: cannot be read as a dataset: {' '.join(str(cause).split())[:400]}") from error
    schema = unified([(data, loaded.features.arrow_schema)])

    def read(columns: list[str] | None) -> Iterator[pa.Table]:
        chosen = schema.names if columns is None else columns
        wanted = pa.schema([schema.field(name) for name in chosen])
        for table in loaded.select_columns(chosen).with_format("arrow").iter(batch_size=BATCH_ROWS):
            yield conformed(table, wanted, data)

    return TableSource(data, schema, read)


def is_text(kind: pa.DataType) -> bool:
    """Whether a column of this type holds texts."""
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def is_chat(kind: pa.DataType) -> bool:
    """Whether a column of this type holds lists of chat messages: structs with a content, or JSON objects."""
    if not (pa.types.is_list(kind) or pa.types.is_large_list(kind)):
        return False
    if isinstance(kind.value_type, pa.JsonType):
        return True
    if not pa.types.is_struct(kind.value_type):
        return False
    if kind.value_type.get_field_index("content") < 0:
        return False
    content = kind.value_type.field("content").type
    return is_text(content) or isinstance(content, pa.JsonType)


def last_contents(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """The texts of a column: the content of the last message where it holds chats, with its tool calls if it has some; null for
    an empty chat."""
    if is_text(column.type):
        return column
    chunks, kind = [], column.type.value_type
    for chunk in column.chunks:
        offsets = chunk.offsets.to_numpy()
        has_messages = (np.diff(offsets) > 0) & chunk.is_valid().to_numpy(zero_copy_only=False)
        last = pa.array(offsets[1:] - 1, mask=~has_messages)
        values, said = (chunk.values, _said) if isinstance(kind, pa.JsonType) else (chunk.values.field("content"), _text)
        if isinstance(values.type, pa.JsonType):
            texts = map(said, python_values(values.take(last)))
            chunks.append(pa.array([text and text.encode("utf-8", "replace").decode() for text in texts], pa.string()))
        else:
            chunks.append(values.take(last))
    is_json = isinstance(kind, pa.JsonType) or isinstance(kind.field("content").type, pa.JsonType)
    return pa.chunked_array(chunks, pa.string() if is_json else kind.field("content").type)


def _said(message: Any) -> str | None:
    """What a message says, as samples are compared: its content, and its tool calls."""
    if not isinstance(message, dict):
        return _text(message)
    calls = message.get("tool_calls")
    said = _text(message.get("content")) or ""
    if not calls:
        return said
    listed = calls if isinstance(calls, list) else [calls]
    return f"{said}\n{_json([call.get('function', call) if isinstance(call, dict) else call for call in listed])}"


def _text(content: Any) -> str | None:
    """A content as text: the texts of its parts, and other parts as JSON."""
    if isinstance(content, str | None):
        return content
    parts = content if isinstance(content, list) else [content]
    texts = (part.get("text") if isinstance(part, dict) else part for part in parts)
    return "\n".join(text if isinstance(text, str) else _json(part) for text, part in zip(texts, parts, strict=True))


def _json(value: Any) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"), default=str)


class ParquetFolder:
    """Writes a table as Parquet files of about FILE_BYTES into a new folder."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.number = folder, 0
        self.writer: Any = None
        folder.mkdir()

    def add(self, table: pa.Table) -> None:
        """Write rows."""
        if self.writer is None:
            path = self.folder / f"{self.number:05d}.parquet"
            self.file = path.open("wb")
            self.writer = pq.ParquetWriter(self.file, table.schema, compression="zstd")
            self.number += 1
        if table.num_rows:
            self.writer.write_table(table)
        if self.file.tell() > FILE_BYTES:
            self.close()

    def close(self) -> None:
        """Finish the open file."""
        if self.writer is not None:
            self.writer.close()
            self.file.close()
            self.writer = None
