"""Tables of any format: reads Parquet, JSONL and datasets of the Hub in batches, writes folders of Parquet files."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from schemas.sample import to_json
from schemas.suggest import did_you_mean
from thresher.errors import SourceError

BATCH_ROWS = 65_536
FILE_BYTES = 1 << 29
"""A Parquet file is closed once it is larger than this."""


@dataclass(frozen=True)
class TableSource:
    """A table on disk, which can be read any number of times."""

    name: str
    """As the user named it."""
    schema: pa.Schema
    source: Any
    """A pyarrow or a Hugging Face dataset."""

    def batches(self, columns: list[str] | None = None) -> Iterator[pa.Table]:
        """Yield the rows in order, in batches. Raises SourceError where the files cannot be read."""
        from pyarrow import dataset  # It imports pandas.

        if isinstance(self.source, dataset.Dataset):
            scanner = self.source.scanner(
                columns=columns,
                batch_size=BATCH_ROWS,
                use_threads=False,
                batch_readahead=1,
                fragment_readahead=1,
                fragment_scan_options=dataset.ParquetFragmentScanOptions(pre_buffer=False, use_buffered_stream=True),
            )
            tables = (pa.Table.from_batches([batch]) for batch in scanner.to_batches())
        else:
            source = self.source if columns is None else self.source.select_columns(columns)
            tables = source.with_format("arrow").iter(batch_size=BATCH_ROWS)
        try:
            yield from tables
        except (pa.ArrowException, OSError) as error:
            raise SourceError(f"{self.name}: cannot be read: {str(error).splitlines()[0]}") from error


def open_table(data: str, config: str | None, split: str | None) -> TableSource:
    """Open a Parquet file or a folder of them, a JSONL file, the directory of a dataset, or a dataset of the Hub.

    Raises SourceError.
    """
    from pyarrow import dataset

    path = Path(data)
    try:
        if path.suffix.lower() in (".parquet", ".pq") or (path.is_dir() and config is None and _is_parquet_folder(path)):
            source = dataset.dataset(str(path), format="parquet")
            return TableSource(data, source.schema, source)
        return _load_dataset(data, path, config, split)
    except (pa.ArrowException, OSError) as error:
        raise SourceError(f"{data}: cannot be read: {str(error).splitlines()[0]}") from error


def _is_parquet_folder(path: Path) -> bool:
    """Whether a folder holds Parquet files that are one table, and not a dataset with configs."""
    return not (path / "README.md").exists() and any(path.glob("*.parquet"))


def _load_dataset(data: str, path: Path, config: str | None, split: str | None) -> TableSource:
    import datasets

    datasets.disable_progress_bars()
    split = split or "train"
    suffixes = "".join(path.suffixes[-2:]).lower()
    try:
        if any(suffix in suffixes for suffix in (".jsonl", ".json", ".ndjson")):
            if not path.is_file():
                hint = did_you_mean(path.name, (file.name for file in path.parent.glob("*")))
                raise SourceError(f"{data}: no such file{hint}")
            loaded = datasets.load_dataset("json", data_files=str(path), split=split)
        else:
            loaded = datasets.load_dataset(data, config, split=split)
    except (ValueError, FileNotFoundError, datasets.exceptions.DatasetGenerationError) as error:
        cause = error.__cause__ or error
        raise SourceError(f"{data}: cannot be read as a dataset: {str(cause).splitlines()[0]}") from error
    return TableSource(data, loaded.features.arrow_schema, loaded)


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
    return kind.value_type.get_field_index("content") >= 0 and is_text(kind.value_type.field("content").type)


def last_contents(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """The texts of a column: the content of the last message where it holds chats, with its tool calls if it has some; null for
    an empty chat."""
    if is_text(column.type):
        return column
    chunks = []
    for chunk in column.chunks:
        offsets = chunk.offsets.to_numpy()
        has_messages = (np.diff(offsets) > 0) & chunk.is_valid().to_numpy(zero_copy_only=False)
        last = pa.array(offsets[1:] - 1, mask=~has_messages)
        if isinstance(column.type.value_type, pa.JsonType):
            texts = chunk.values.storage.take(last).to_pylist()
            chunks.append(pa.array([None if text is None else _said(text) for text in texts], pa.string()))
        else:
            chunks.append(chunk.values.field("content").take(last))
    kind = column.type.value_type
    return pa.chunked_array(chunks, pa.string() if isinstance(kind, pa.JsonType) else kind.field("content").type)


def _said(message: str) -> str:
    """What a message says, as samples are compared: its content, and its tool calls."""
    parts = json.loads(message)
    calls = parts.get("tool_calls")
    said = str(parts.get("content") or "")
    return said if not calls else f"{said}\n{to_json([call['function'] for call in calls])}"


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
