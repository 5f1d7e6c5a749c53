#!/usr/bin/env bash
# datasets 5.2.0: what Dataset.from_generator makes of a row depends on whether it is among the first 1000.
#
# Expected: from_generator takes values whose keys differ from row to row for JSON and gives each back as it was. Shuffling or
#   sorting the rows changes their order and nothing else.
# Happens: only the first 1000 rows (one batch of the writer) decide between JSON and a fixed struct. A call search(query="a")
#   without its optional `limit` stays as it is at place 999 and becomes search(query="a", limit=None) at place 1000, without a
#   warning. A conversation with tool calls among plain ones is kept at place 999, and raises an error at place 1000.
#   Dataset.map does the same. load_dataset("json") keeps the rows in either order.
# Hurts: data sorted by source, plain chats first: it works on the small sample and fails on the whole, or it trains the model
#   on null arguments that nobody wrote.
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
import json
import os
import sys
from pathlib import Path

from datasets import Dataset, load_dataset
from datasets.exceptions import DatasetGenerationError

FOLDER = Path(os.environ["FINDING_FOLDER"])


def generated(rows):
    return Dataset.from_generator(lambda: iter(rows))


def mapped(rows):
    places = Dataset.from_dict({"place": list(range(len(rows)))})
    return places.map(lambda row: rows[row["place"]], remove_columns=["place"])


def loaded(rows):
    path = FOLDER / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return load_dataset("json", data_files=str(path), split="train")


def at(place, row, others, way):
    """What becomes of a row that stands at this place among 1500 others."""
    try:
        return way([others] * place + [row] + [others] * (1500 - place))[place]
    except (DatasetGenerationError, TypeError) as error:
        return type(error.__cause__ or error).__name__


def chat(**more):
    return {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a", **more}]}


short, full = {"search": {"query": "a"}}, {"search": {"query": "b", "limit": 3}}
filled = {"search": {"query": "a", "limit": None}}
calls = chat(tool_calls=[{"type": "function", "function": {"name": "add", "arguments": {"x": 1}}}])
described = [
    ("a call without `limit`", short, full, generated, short, filled),
    ("a call without `limit`", short, full, mapped, short, filled),
    ("a call without `limit`", short, full, loaded, short, short),
    ("a chat with tool calls", calls, chat(), generated, calls, "TypeError"),
    ("a chat with tool calls", calls, chat(), mapped, calls, "TypeError"),
    ("a chat with tool calls", calls, chat(), loaded, calls, calls),
]
changed = []
for what, row, others, way, *wanted in described:
    found = [at(place, row, others, way) for place in (999, 1000)]
    shown = ["the same" if result == row else result for result in found]
    print(f"{what}, {way.__name__:9} at place 999: {shown[0]}; at place 1000: {shown[1]}")
    if found != wanted:
        changed.append(f"{what}, {way.__name__}")
if changed:
    sys.exit(f"Changed: {'; '.join(changed)}.")
print("As described: the first 1000 rows decide what becomes of the later ones.")
PY
