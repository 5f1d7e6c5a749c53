"""Rows to make prompts from: JSONL, Parquet and Arrow files, datasets, reasoning-gym families, grids of values."""

import base64
import difflib
import itertools
import json
import os
from collections.abc import Iterator
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset

from schemas.recipe import DatasetSource, GridSource, JsonlSource, ParquetSource, ReasoningGymSource, Source
from thresher.errors import SourceError

BATCH_ROWS = 4096

EVALUATING = frozenset(
    [
        "binary_matrix",
        "countdown",
        "intermediate_integration",
        "n_queens",
        "polynomial_multiplication",
        "puzzle24",
        "simple_integration",
        "spiral_matrix",
        "string_insertion",
    ]
)
"""Families of reasoning-gym 0.1.25 whose scorers evaluate the answer as code."""

HASH_DEPENDENT = frozenset(
    ["acre", "codeio", "isomorphic_strings", "knight_swap", "polynomial_multiplication", "ransom_note", "word_ladder"]
)
"""Families whose prompts depend on PYTHONHASHSEED, so that a run could not be made again."""


def rows(source: Source, base: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (where, row): `where` names the row in errors. Paths are relative to `base`. Raises SourceError."""
    match source:
        case JsonlSource():
            return _jsonl(_existing(base / source.path))
        case ParquetSource():
            return _arrow(_existing(base / source.path))
        case DatasetSource():
            return _dataset(source, base)
        case ReasoningGymSource():
            return _reasoning_gym(source)
        case GridSource():
            return _grid(source)


def plain(value: Any, where: str) -> Any:
    """A value as JSON has them: dates as ISO text, bytes as base64. Raises SourceError for NaN and for what JSON cannot hold."""
    match value:
        case None | bool() | int() | str():
            return value
        case float():
            if value != value or value in (float("inf"), float("-inf")):
                raise SourceError(f"{where}: {value} is no JSON number; use null or a text")
            return value
        case dict():
            return {str(key): plain(inner, where) for key, inner in value.items()}
        case list() | tuple():
            return [plain(inner, where) for inner in value]
        case datetime() | date() | time():
            return value.isoformat()
        case timedelta():
            return value.total_seconds()
        case Decimal():
            return str(value)
        case bytes():
            return base64.b64encode(value).decode()
    if hasattr(value, "item"):  # a numpy scalar
        return plain(value.item(), where)
    raise SourceError(f"{where}: a {type(value).__name__} cannot be kept as JSON")


def parse_line(line: bytes, where: str) -> dict[str, Any]:
    """One line of JSONL. Raises SourceError that says what was found instead of an object."""
    try:
        row = json.loads(line.decode("utf-8"), parse_constant=lambda name: _refuse(f"{where}: {name} is no JSON"))
    except UnicodeDecodeError as error:
        raise SourceError(f"{where}: not UTF-8 text (byte {error.start} of the line)") from error
    except (ValueError, RecursionError) as error:
        said = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
        raise SourceError(f"{where}: not JSON: {said}; wanted one JSON object per line") from error
    if not isinstance(row, dict):
        raise SourceError(f"{where}: wanted a JSON object, found {type(row).__name__}")
    return row


def _refuse(text: str) -> None:
    raise SourceError(text)


def _existing(path: Path) -> Path:
    if not path.exists():
        near = difflib.get_close_matches(path.name, [one.name for one in path.parent.glob("*")], n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise SourceError(f"{path}: no such file; paths are relative to the recipe{hint}")
    return path


def _jsonl(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                where = f"{path}:{number}"
                yield where, parse_line(line, where)


def open_arrow(path: Path) -> pyarrow.dataset.Dataset:
    """A Parquet or Arrow IPC file, or a directory of Parquet files. Raises SourceError when it is neither."""
    kind = "ipc" if path.suffix in {".arrow", ".ipc", ".feather"} else "parquet"
    try:
        return pyarrow.dataset.dataset(str(path), format=kind)
    except (pa.ArrowInvalid, OSError) as error:
        raise SourceError(f"{path}: cannot be read as {kind}: {str(error).splitlines()[0]}") from error


def _arrow(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    number = 0
    try:
        for batch in open_arrow(path).to_batches(batch_size=BATCH_ROWS):
            for row in batch.to_pylist():
                yield f"{path} row {number}", row
                number += 1
    except (pa.ArrowInvalid, OSError) as error:
        raise SourceError(f"{path}: damaged after row {number}: {str(error).splitlines()[0]}") from error


def _dataset(source: DatasetSource, base: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    import datasets

    local = base / source.path
    path = str(local) if local.is_dir() else source.path
    called = f"dataset {source.path}" + (f" ({source.config})" if source.config else "")
    try:
        if local.is_dir() and ((local / "dataset_info.json").exists() or (local / "dataset_dict.json").exists()):
            found = datasets.load_from_disk(path)
            if isinstance(found, datasets.DatasetDict):
                found = found[source.split]
        else:
            found = datasets.load_dataset(path, source.config, split=source.split, revision=source.revision)
    except (ValueError, KeyError, OSError, datasets.exceptions.DatasetsError) as error:
        said = " ".join(str(error).split())
        raise SourceError(
            f"{called}, split {source.split}: {type(error).__name__}: {said[:300]}; check path, config, split and revision "
            "(and HF_ENDPOINT, HF_TOKEN for the Hub)"
        ) from error
    for number, row in enumerate(found):
        yield f"{called} row {number}", dict(row)


def _reasoning_gym(source: ReasoningGymSource) -> Iterator[tuple[str, dict[str, Any]]]:
    if source.name in EVALUATING:
        raise SourceError(f"reasoning_gym {source.name}: its scorer evaluates answers as code; choose another family")
    if source.name in HASH_DEPENDENT and os.environ.get("PYTHONHASHSEED") != "0":
        raise SourceError(f"reasoning_gym {source.name}: its prompts depend on PYTHONHASHSEED; set PYTHONHASHSEED=0 for this run")
    try:
        import reasoning_gym
        from reasoning_gym.factory import DATASETS
    except ImportError as error:
        raise SourceError(f"reasoning_gym cannot be imported ({error}); pip install 'thresher[reasoning]'") from error
    if source.name not in DATASETS:
        near = difflib.get_close_matches(source.name, list(DATASETS), n=1)
        raise SourceError(f"reasoning_gym has no family {source.name!r}" + (f"; did you mean {near[0]}?" if near else ""))
    try:
        made = reasoning_gym.create_dataset(source.name, seed=source.seed, size=source.size, **source.config)
    except (TypeError, AssertionError, ValueError) as error:
        raise SourceError(f"reasoning_gym {source.name}: config {source.config}: {error}") from error
    for index in range(source.size):
        item = made[index]
        facts = {
            "name": source.name,
            "config": source.config,
            "seed": source.seed,
            "index": index,
            "version": reasoning_gym.__version__,
        }
        yield (
            f"reasoning_gym {source.name} item {index}",
            {
                "question": item["question"],
                "answer": item["answer"],
                "reasoning_gym": facts,
            },
        )


def _grid(source: GridSource) -> Iterator[tuple[str, dict[str, Any]]]:
    for number, values in enumerate(itertools.product(*source.fields.values())):
        yield f"grid row {number}", dict(zip(source.fields, values, strict=True))
