"""Tables that a user brings or gets: any Parquet, JSONL or Hub dataset in, folders of Parquet files out."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from schemas.suggest import did_you_mean
from thresher.errors import SourceError

BATCH_ROWS = 65_536
FILE_BYTES = 1 << 29


@dataclass(frozen=True)
class Opened:
    """A table on disk, as often as it is asked for."""

    name: str
    schema: pa.Schema
    source: Any

    def batches(self, columns: list[str] | None = None) -> Iterator[pa.Table]:
        """Its rows in order, in batches."""
        from pyarrow import dataset  # brings pandas with it

        if isinstance(self.source, dataset.Dataset):
            scanner = self.source.scanner(
                columns=columns,
                batch_size=BATCH_ROWS,
                use_threads=False,
                batch_readahead=1,
                fragment_readahead=1,
                fragment_scan_options=dataset.ParquetFragmentScanOptions(pre_buffer=False, use_buffered_stream=True),
            )
            read = (pa.Table.from_batches([batch]) for batch in scanner.to_batches())
        else:
            source = self.source if columns is None else self.source.select_columns(columns)
            read = source.with_format("arrow").iter(batch_size=BATCH_ROWS)
        try:
            yield from read
        except (pa.ArrowException, OSError) as error:
            raise SourceError(f"{self.name}: cannot be read: {str(error).splitlines()[0]}") from error


def opened(data: str, config: str | None, split: str | None) -> Opened:
    """A Parquet file or a folder of such, a JSONL file, the directory of a dataset, or a dataset of the Hub."""
    from pyarrow import dataset

    path = Path(data)
    try:
        if path.suffix.lower() in (".parquet", ".pq") or (path.is_dir() and config is None and _only_parquet(path)):
            source = dataset.dataset(str(path), format="parquet")
            return Opened(data, source.schema, source)
        return _by_datasets(data, path, config, split)
    except (pa.ArrowException, OSError) as error:
        raise SourceError(f"{data}: cannot be read: {str(error).splitlines()[0]}") from error


def _only_parquet(path: Path) -> bool:
    """A folder of Parquet files that are one table: no dataset with configs."""
    return not (path / "README.md").exists() and any(path.glob("*.parquet"))


def _by_datasets(data: str, path: Path, config: str | None, split: str | None) -> Opened:
    import datasets

    datasets.disable_progress_bars()
    split = split or "train"
    ending = "".join(path.suffixes[-2:]).lower()
    try:
        if any(one in ending for one in (".jsonl", ".json", ".ndjson")):
            if not path.is_file():
                raise SourceError(f"{data}: no such file{did_you_mean(path.name, (one.name for one in path.parent.glob('*')))}")
            found = datasets.load_dataset("json", data_files=str(path), split=split)
        else:
            found = datasets.load_dataset(data, config, split=split)
    except (ValueError, FileNotFoundError, datasets.exceptions.DatasetGenerationError) as error:
        cause = error.__cause__ or error
        raise SourceError(f"{data}: cannot be read as a dataset: {str(cause).splitlines()[0]}") from error
    return Opened(data, found.features.arrow_schema, found)


def is_text(kind: pa.DataType) -> bool:
    """Whether a column holds texts."""
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def is_chat(kind: pa.DataType) -> bool:
    """Whether a column holds chat messages."""
    if not (pa.types.is_list(kind) or pa.types.is_large_list(kind)) or not pa.types.is_struct(kind.value_type):
        return False
    return kind.value_type.get_field_index("content") >= 0 and is_text(kind.value_type.field("content").type)


def last_said(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Texts, or the contents of the last messages."""
    if is_text(column.type):
        return column
    chunks = []
    for chunk in column.chunks:
        contents = chunk.values.field("content")
        ends = chunk.offsets.to_numpy()[1:] - 1
        some = (np.diff(chunk.offsets.to_numpy()) > 0) & chunk.is_valid().to_numpy(zero_copy_only=False)
        chunks.append(contents.take(pa.array(ends, mask=~some)))
    return pa.chunked_array(chunks, column.type.value_type.field("content").type)


class Files:
    """Parquet files of a folder, each up to FILE_BYTES."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.number = folder, 0
        self.writer: Any = None
        folder.mkdir()

    def add(self, table: pa.Table) -> None:
        """Write some rows."""
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
        """End the file that is open."""
        if self.writer is not None:
            self.writer.close()
            self.file.close()
            self.writer = None
