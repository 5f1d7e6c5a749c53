"""False alarms of `coherence` on paragraphs that are no plain prose, by kind: markdown, maths, dialogue, lists and tables.

python benchmarks/coherence_kinds.py [--paragraphs 2000] [--shown 0]

The paragraphs come from the documents of installed packages: README files and descriptions (markdown), docstrings and notes with
LaTeX or formulas (maths), lines that start with a speaker or a quotation mark (dialogue). They are not looked at by hand, so a
part of what is flagged may be broken indeed.
"""

import argparse
import random
import re
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pyarrow as pa

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import filters
from thresher.estimators.intervals import wilson

CHARACTERS = (80, 1_500)
_MARKDOWN = re.compile(r"(?m)^(?:#{1,6} |[*+-] |\d+\. |\|.*\||> )|\[[^\]]+\]\([^)]+\)|`[^`]+`|\*\*[^*]+\*\*")
_MATHS = re.compile(r"\\(?:frac|sum|int|sqrt|alpha|beta|mathbb|mathrm|leq|cdot)\b|\$[^$]+\$|:math:`|\b[a-z]\^\{?\d|[a-z]_\{")
_SPEAKER = re.compile(r"(?m)^\s*(?:[A-Z][a-z]+: |[\"\u201c][A-Z])")
KINDS = {"markdown": _MARKDOWN, "maths": _MATHS, "dialogue": _SPEAKER}


def paragraphs() -> Iterator[str]:
    """Paragraphs of the documents and docstrings of installed packages."""
    packages = Path(sysconfig.get_paths()["purelib"])
    for path in sorted(packages.rglob("*")):
        if path.suffix not in (".md", ".rst", ".txt", ".py") and path.name != "METADATA":
            continue
        try:
            text = path.read_text("utf-8")[:400_000]
        except (ValueError, OSError):
            continue
        if path.suffix == ".py":
            if "math" not in text and "\\frac" not in text:
                continue
            text = "\n\n".join(re.findall(r'"""(.*?)"""', text, re.DOTALL))
        for part in re.split(r"\n[ \t]*\n", text):
            if CHARACTERS[0] <= len(part.strip()) <= CHARACTERS[1]:
                yield part.strip()


def main() -> int:
    """Print a row per kind."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--paragraphs", type=int, default=2_000)
    parser.add_argument("--shown", type=int, default=0)
    arguments = parser.parse_args()
    found: dict[str, set[str]] = {kind: set() for kind in KINDS}
    for text in paragraphs():
        for kind, pattern in KINDS.items():
            if pattern.search(text):
                found[kind].add(text)
    built = filters.build("coherence", {})
    print("| kind | paragraphs | flagged | 95 % interval |\n|---|---|---|---|")
    for kind, texts in found.items():
        chosen = random.Random(0).sample(sorted(texts), min(arguments.paragraphs, len(texts)))
        table = cast("pa.Table", built.judge(pa.table({"completion": chosen})))
        reasons = table["reason"].to_pylist()
        flagged = [(reason, text) for reason, text in zip(reasons, chosen, strict=True) if reason]
        low, high = wilson(len(flagged) / len(chosen), len(chosen))
        print(f"| {kind} | {len(chosen):,} | {len(flagged) / len(chosen):.2%} | {low:.2%} to {high:.2%} |")
        for reason, text in flagged[: arguments.shown]:
            print("   ", reason, repr(text[:300]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
