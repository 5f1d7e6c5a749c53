#!/usr/bin/env bash
# datasets 5.2.0: a split without rows keeps the other splits of its config from being loaded.
#
# Expected: load_dataset gives every split of a config; a split whose Parquet file holds its columns and no rows has none.
# Happens: load_dataset(folder, config) raises `Instruction "test" corresponds to no data!`. With split="train" the same folder
#   loads, and with streaming=True the empty split is there with its columns. Where the file has a row group of no rows, as
#   pq.write_table writes it, the config is not built at all, and split="train" fails too.
# Hurts: a small release whose held-out share happens to be empty: the page of the dataset looks right, and no reader can load it.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python=${FINDINGS_PYTHON:-}
if [ -z "$python" ]; then
    python3.11 -m venv "$work/venv"
    python=$work/venv/bin/python
    "$python" -m pip install -qq --disable-pip-version-check datasets==5.2.0 pyarrow==26.0.1 2>"$work/pip" || {
        cat "$work/pip" >&2
        exit 1
    }
fi

export HF_HUB_OFFLINE=1 HF_HOME="$work/home" HF_DATASETS_DISABLE_PROGRESS_BARS=1 FINDING_FOLDER="$work"

"$python" -W ignore - 2>"$work/stderr" <<'PY' || { status=$?; tail -n 5 "$work/stderr" >&2; exit "$status"; }
import os
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import load_dataset

CARD = """---
configs:
- config_name: sft
  data_files:
  - {split: train, path: train.parquet}
  - {split: test, path: test.parquet}
---
"""
ROWS = pa.table({"prompt": ["q", "r"], "completion": ["a", "b"]})


def empty_without_groups(path):
    pq.ParquetWriter(path, ROWS.schema).close()


def empty_group(path):
    pq.write_table(ROWS.schema.empty_table(), path)


def outcome(folder, **how):
    try:
        loaded = load_dataset(str(folder), "sft", cache_dir=str(folder / "cache"), **how)
    except Exception as error:
        return type(error).__name__
    if how.get("streaming"):
        return {name: (len(list(split)), list(split.features)) for name, split in loaded.items()}
    return loaded.num_rows


described = [
    (empty_without_groups, {}, "ValueError"),
    (empty_without_groups, {"split": "train"}, 2),
    (empty_without_groups, {"streaming": True}, {"train": (2, ROWS.column_names), "test": (0, ROWS.column_names)}),
    (empty_group, {}, "DatasetGenerationError"),
    (empty_group, {"split": "train"}, "DatasetGenerationError"),
]
changed = []
for number, (write, how, wanted) in enumerate(described):
    folder = Path(os.environ["FINDING_FOLDER"]) / str(number)
    folder.mkdir()
    (folder / "README.md").write_text(CARD)
    pq.write_table(ROWS, folder / "train.parquet")
    write(folder / "test.parquet")
    found = outcome(folder, **how)
    print(f"{write.__name__:20} load_dataset({', '.join(f'{k}={v!r}' for k, v in how.items()) or '...'}): {found}")
    if found != wanted:
        changed.append(f"{write.__name__} {how}")
if changed:
    sys.exit(f"Changed: {'; '.join(changed)}.")
print("As described: an empty split keeps its config from being loaded.")
PY
