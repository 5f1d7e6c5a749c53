"""How much of a benchmark that was copied with changes `decontaminate` finds, by the length of its items.

python benchmarks/decontaminate_recall.py [--items 400]

Items are made of words of documentation strings; each text holds one item with some of its words
replaced, as a copy with other numbers or names has. Also exact copies of Chinese and Japanese items, and texts that hold none.
Prints the table of docs/filters.md.
"""

import argparse
import json
import random
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import filters
from filters.judging import judge
from helpers.filter_tables import pool_table

LENGTHS = (5, 10, 15, 30, 60)
CHARACTERS = {"Chinese": (0x4E00, 0x5000), "Japanese": (0x3042, 0x3094)}


def found(items: Sequence[str], texts: Sequence[str]) -> float:
    """Share of the texts that repeat an item."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "bench.jsonl"
        path.write_text("".join(json.dumps({"question": item}) + "\n" for item in items))
        parameters: dict[str, Any] = {"benchmarks": [{"name": "bench", "path": str(path)}]}
        built = filters.build("decontaminate", parameters)
        outcomes = judge(built, pool_table(*({"completion": text} for text in texts)))["outcome"].to_pylist()
    return float(outcomes.count("drop") / len(outcomes))


def vocabulary() -> list[str]:
    """Words of English prose."""
    texts = [value.__doc__ or "" for module in (json, random, argparse, tempfile) for value in vars(module).values()]
    return sorted({word for text in texts for word in text.lower().split() if word.isalpha() and len(word) > 2})


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--items", type=int, default=400)
    count = parser.parse_args().items
    draw, words = random.Random(4), vocabulary()
    print("| words of an item | exact copy | one word changed | two words changed | no copy |\n|---|---|---|---|---|")
    for length in LENGTHS:
        items = [[draw.choice(words) for _ in range(length)] for _ in range(count)]
        row = []
        for changes in (0, 1, 2):
            copies = [list(item) for item in items]
            for copy in copies:
                for place in draw.sample(range(length), changes):
                    copy[place] = str(draw.randint(2, 999))
            row.append(
                found([" ".join(item) for item in items], [f"We are asked: {' '.join(copy)}? Let us see." for copy in copies])
            )
        others = [" ".join(draw.choice(words) for _ in range(length)) for _ in range(count)]
        row.append(found([" ".join(item) for item in items], others))
        print(f"| {length} | " + " | ".join(f"{share:.0%}" for share in row) + " |")
    for language, (low, high) in CHARACTERS.items():
        texts = ["".join(chr(draw.randrange(low, high)) for _ in range(40)) for _ in range(count)]
        others = ["".join(chr(draw.randrange(low, high)) for _ in range(40)) for _ in range(count)]
        changed = [text[:20] + "12" + text[21:] for text in texts]
        row = [found(texts, [f"{other[:9]}{text}{other[9:12]}" for text, other in zip(texts, others, strict=True)])]
        row += [found(texts, changed), found(texts, others)]
        print(f"| 40 characters, {language} | {row[0]:.0%} | {row[1]:.0%} | | {row[2]:.0%} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
