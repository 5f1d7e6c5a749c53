#!/usr/bin/env bash
# if-verifiable 0.1.2 (the verifiers of IFBench): a bullet in bold fails, no bullets at all pass, and "And ... and" are two words.
#
# Expected: format:sub-bullets wants bullets `*`, each with a sub-bullet `-`; count:conjunctions wants N different ones.
# Happens: the text is split at every `*`, so `* **Apples**` with a sub-bullet scores 0.0, the same list without bold 1.0, and a
#   text without any bullet 1.0. Conjunctions are compared with their capitals and commas: "And this, and that." has two.
# Hurts: models that write Markdown are scored down for following the instruction, and a text that ignores it is rewarded.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python=${FINDINGS_PYTHON:-}
if [ -z "$python" ]; then
    python3.11 -m venv "$work/venv"
    python=$work/venv/bin/python
    "$python" -m pip install -qq --disable-pip-version-check if-verifiable==0.1.2 2>"$work/pip" || {
        cat "$work/pip" >&2
        exit 1
    }
fi

"$python" -W ignore - 2>"$work/stderr" <<'PY' || { status=$?; tail -n 5 "$work/stderr" >&2; exit "$status"; }
import sys

from if_verifiable import IFBenchSample, evaluate_output_for_sample

DESCRIBED = [
    ("format:sub-bullets", {}, "* Apples\n  - red\n* Pears\n  - green", 1.0),
    ("format:sub-bullets", {}, "* **Apples**\n  - red\n* **Pears**\n  - green", 0.0),
    ("format:sub-bullets", {}, "Apples are red and pears are green.", 1.0),
    ("count:conjunctions", {"small_n": 2}, "And this, and that.", 1.0),
]
changed = []
for name, arguments, text, wanted in DESCRIBED:
    sample = IFBenchSample(key="1", prompt="", instruction_id_list=[name], kwargs=[arguments])
    _, scores = evaluate_output_for_sample("ifbench", sample, text)
    print(f"{name} {text[:30]!r}: {scores.binary_strict}")
    if scores.binary_strict != wanted:
        changed.append(f"{name} {text[:30]!r}")
if changed:
    sys.exit(f"Changed: {'; '.join(changed)}.")
print("As described: bold bullets fail, no bullets pass, a repeated conjunction counts twice.")
PY
