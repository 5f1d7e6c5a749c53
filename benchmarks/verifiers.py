"""The cost of the verifiers and how often they are right, each compared with its peers in the same run.

python benchmarks/verifiers.py [maths] [code] [json] [text] [overlap]

maths: accuracy on tests/data/math_pairs.jsonl, and answers/s, compared with math-verify alone. code: programs/s through the
sandbox, compared with a new interpreter and a new bubblewrap per program. json: validations/s, compared with jsonschema. text:
false alarms on clean sentences and recall on splices, by rule. overlap: documents/s of decontaminate.
"""

import importlib
import sys
from typing import Any

PARTS = {
    "maths": "verify_maths",
    "code": "verify_code",
    "json": "verify_json",
    "text": "verify_text",
    "overlap": "verify_overlap",
}


def main(chosen: list[str]) -> int:
    unknown = sorted(set(chosen) - set(PARTS))
    if unknown:
        print(f"verifiers.py: no part is called {unknown[0]!r}; the parts are {', '.join(PARTS)}", file=sys.stderr)
        return 2
    for part in chosen or PARTS:
        print(f"== {part}")
        table(importlib.import_module(PARTS[part]).rows())
    return 0


def table(rows: list[dict[str, Any]]) -> None:
    """Print rows under their columns, with a blank line where the columns change."""
    columns: list[str] = []
    for number, row in enumerate(rows):
        if list(row) != columns:
            columns = list(row)
            same = [below for below in rows[number:] if list(below) == columns]
            widths = [max(len(name), *(len(_text(below[name])) for below in same)) for name in columns]
            print("\n" * (number > 0) + "  ".join(name.ljust(width) for name, width in zip(columns, widths, strict=True)))
        print("  ".join(_text(row[name]).ljust(width) for name, width in zip(columns, widths, strict=True)))


def _text(value: Any) -> str:
    return f"{value:,.4g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
