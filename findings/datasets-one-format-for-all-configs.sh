#!/usr/bin/env bash
# datasets 5.2.0: all configs of a repository are read in one format, whatever their files are.
#
# Expected: the card names the files of each config, and each config is read by what its files are: `one` from x.csv, `two` from
#   y.parquet.
# Happens: the format of the config that stands first on the card is taken for all of them. The other one fails with an error of
#   the wrong reader ("'utf-8' codec can't decode byte ...", or one about the end of a Parquet file), which names neither the config
#   nor the reason. Which of the two can be loaded depends on their order alone.
# Hurts: a person adds a table of notes as CSV beside the Parquet configs of a released dataset. Written last, their own config never
#   loads; written first, none of the released ones does.
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

CONFIGS = {"one": "*.csv", "two": "*.parquet"}


def card(order):
    return "\n".join(["---", "configs:", *(f'- {{config_name: {name}, data_files: "{CONFIGS[name]}"}}' for name in order), "---", ""])


def loads(folder, config):
    try:
        return load_dataset(str(folder), config, cache_dir=str(folder / "cache"))["train"].num_rows
    except Exception as error:
        return type(error).__name__


described = [
    (("one", "two"), 1, 1, "DatasetGenerationError"),
    (("one", "two"), 3, 1, "DatasetGenerationError"),
    (("two", "one"), 1, "ArrowInvalid", 2),
    (("two", "one"), 3, "ArrowInvalid", 6),
]
changed = []
for number, (order, files, *wanted) in enumerate(described):
    folder = Path(os.environ["FINDING_FOLDER"]) / str(number)
    folder.mkdir()
    (folder / "README.md").write_text(card(order))
    (folder / "x.csv").write_text("a\n1\n")
    for name in range(files):
        pq.write_table(pa.table({"a": [1, 2]}), folder / f"y{name}.parquet")
    found = [loads(folder, config) for config in ("one", "two")]
    print(f"first {order[0]}, {files} Parquet files beside the CSV: config one (CSV) {found[0]}, two (Parquet) {found[1]}")
    if found != wanted:
        changed.append(f"{order[0]} first, {files} Parquet files")
if changed:
    sys.exit(f"Changed: {'; '.join(changed)}.")
print("As described: one format is taken for all configs.")
PY
