#!/usr/bin/env bash
# lm-format-enforcer 0.11.3 with PyYAML 6.0.3: importing it makes yaml.safe_load return dates as text, for the whole process.
#
# Expected: an imported library leaves the loaders of another one as they are; `yaml.safe_load("2026-11-30")` is a datetime.date.
# Happens: with its parser of JSON schemas (a generated copy of another project's module) lm-format-enforcer overwrites the
#   constructor of dates in a table that yaml.SafeLoader and yaml.CSafeLoader share. From then on each `date:` of every YAML file
#   of the process is a str, and a date that is none (2026-13-40) is no error any more.
# Hurts: vLLM requires the package, and imports it where its backend of that name is used. Whatever reads YAML afterwards
#   (a recipe, the front matter of a dataset card, `datasets`) reads other values than before: the answer depends on
#   what ran earlier in the process.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python=${FINDINGS_PYTHON:-}
if [ -z "$python" ]; then
    python3.11 -m venv "$work/venv"
    python=$work/venv/bin/python
    "$python" -m pip install -qq --disable-pip-version-check lm-format-enforcer==0.11.3 pyyaml==6.0.3 pydantic==2.13.4 2>"$work/pip" || {
        cat "$work/pip" >&2
        exit 1
    }
fi

"$python" -W ignore - <<'PY'
import sys

import yaml


def kinds():
    return [type(yaml.load("2026-11-30", loader)).__name__ for loader in (yaml.SafeLoader, yaml.CSafeLoader)]


def refused():
    try:
        yaml.safe_load("2026-13-40")
    except ValueError:
        return True
    return False


before, was_refused = kinds(), refused()
import lmformatenforcer.external.jsonschemaobjectutil  # noqa: E402

after, is_refused = kinds(), refused()
print(f"before the import: {before}, 2026-13-40 refused: {was_refused}")
print(f"after the import:  {after}, 2026-13-40 refused: {is_refused}")
wanted = (["date", "date"], True, ["str", "str"], False)
sys.exit((before, was_refused, after, is_refused) != wanted)
PY
echo "as described"
