#!/usr/bin/env bash
# math-verify 0.9.0: units are dropped before answers are compared, and a percentage equals two different numbers.
#
# Expected: 5 m is not 5 km, and 90 degrees are not 90 minutes; if 50 % is 0.5, it is not 50.
# Happens: verify(parse(gold), parse(answer)) is True for all of them: the parsed values are the bare numbers, and 50 % is equal to
#   0.5 and to 50, which do not equal each other.
# Hurts: an answer in the wrong unit, off by a factor of 1,000, is rewarded; equality is not transitive, so votes by it depend on
#   the order in which answers are joined.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python=${FINDINGS_PYTHON:-}
if [ -z "$python" ]; then
    python3.11 -m venv "$work/venv"
    python=$work/venv/bin/python
    "$python" -m pip install -qq --disable-pip-version-check math-verify==0.9.0 antlr4-python3-runtime==4.13.2 2>"$work/pip" || {
        cat "$work/pip" >&2
        exit 1
    }
fi

"$python" -W ignore - 2>"$work/stderr" <<'PY' || { status=$?; tail -n 5 "$work/stderr" >&2; exit "$status"; }
import sys

from math_verify import parse, verify

DESCRIBED = [
    (r"$5 \text{ m}$", r"$5 \text{ km}$", True),
    (r"$90^\circ$", r"$90 \text{ minutes}$", True),
    (r"$50\%$", "$0.5$", True),
    (r"$50\%$", "$50$", True),
    ("$0.5$", "$50$", False),
]
changed = []
for gold, answer, wanted in DESCRIBED:
    equal = verify(parse(gold), parse(answer))
    print(f"{gold:18} {answer:22} equal: {equal}")
    if equal is not wanted:
        changed.append(f"{gold} and {answer}")
if changed:
    sys.exit(f"Changed: {'; '.join(changed)}.")
print("As described: units make no difference, and 50 % equals both 0.5 and 50.")
PY
