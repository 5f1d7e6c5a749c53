"""What the verifiers cost and how often they are right, each against its peers in the same run.

python benchmarks/verifiers.py [maths] [code] [json] [text] [overlap]

maths: accuracy on tests/data/math_pairs.jsonl, and answers/s, against math-verify alone. code: programs/s through the sandbox
against a fresh interpreter, and a fresh bubblewrap, per program. json: validations/s against jsonschema. text: false alarms on
clean sentences and recall on splices, by rule. overlap: documents/s of decontaminate. Each part is a script of its own too.
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
        print(f"verifiers.py: no part is called {unknown[0]!r}; there are {', '.join(PARTS)}", file=sys.stderr)
        return 2
    for part in chosen or PARTS:
        print(f"== {part}")
        table(importlib.import_module(PARTS[part]).rows())
    return 0


def table(rows: list[dict[str, Any]]) -> None:
    """Print rows under their columns; one blank line where the columns change."""
    before: list[str] = []
    for at, row in enumerate(rows):
        if list(row) != before:
            before = list(row)
            same = [other for other in rows[at:] if list(other) == before]
            widths = [max(len(name), *(len(_text(other[name])) for other in same)) for name in before]
            print("\n" * (at > 0) + "  ".join(name.ljust(width) for name, width in zip(before, widths, strict=True)))
        print("  ".join(_text(row[name]).ljust(width) for name, width in zip(before, widths, strict=True)))


def _text(value: Any) -> str:
    return f"{value:,.4g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
