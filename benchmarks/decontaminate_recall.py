"""How much of a benchmark that was copied with changes `decontaminate` finds, by the length of its items.

python benchmarks/decontaminate_recall.py [--items 400]

Items are made of words of documentation strings, one number and one name; each text holds one item, as it is or with another
number, another name or both. Also exact copies of Chinese and Japanese items, and texts that hold none.
Prints the table of docs/verdicts.md.
"""

import argparse
import json
import random
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import filters
from filters.judging import judge
from helpers.filter_tables import pool_table

NAMES = "Anna Ben Carla David Elena Farid Grace Hugo Ines Jonas Kira Liam Mina Noah Olga Paul Quinn Rosa Samir Tara".split()
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


@dataclass(frozen=True)
class Item:
    """A question with one number and one name, at these places."""

    words: tuple[str, ...]
    number: int
    name: int

    @property
    def text(self) -> str:
        return " ".join(self.words)

    def changed(self, draw: random.Random, *, number: bool, name: bool) -> str:
        """Its text with another number, another name, or both."""
        words = list(self.words)
        if number:
            words[self.number] = str(int(words[self.number]) + draw.randint(1, 999))
        if name:
            words[self.name] = draw.choice([other for other in NAMES if other != words[self.name]])
        return " ".join(words)


def item_of(draw: random.Random, words: Sequence[str], length: int) -> Item:
    """A question of `length` words."""
    chosen = [draw.choice(words) for _ in range(length)]
    number, name = draw.sample(range(length), 2)
    chosen[number], chosen[name] = str(draw.randint(2, 999)), draw.choice(NAMES)
    return Item(tuple(chosen), number, name)


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--items", type=int, default=400)
    count = parser.parse_args().items
    draw, words = random.Random(4), vocabulary()
    print("| words of an item | exact copy | number changed | name changed | both changed | no copy |\n|---|---|---|---|---|---|")
    for length in LENGTHS:
        items, row = [item_of(draw, words, length) for _ in range(count)], []
        for number, name in ((False, False), (True, False), (False, True), (True, True)):
            copies = [item.changed(draw, number=number, name=name) for item in items]
            row.append(found([item.text for item in items], [f"We are asked: {copy}? Let us see." for copy in copies]))
        row.append(found([item.text for item in items], [item_of(draw, words, length).text for _ in range(count)]))
        print(f"| {length} | " + " | ".join(f"{share:.0%}" for share in row) + " |")
    for language, (low, high) in CHARACTERS.items():
        texts = ["".join(chr(draw.randrange(low, high)) for _ in range(40)) for _ in range(count)]
        others = ["".join(chr(draw.randrange(low, high)) for _ in range(40)) for _ in range(count)]
        changed = [text[:20] + "12" + text[21:] for text in texts]
        row = [found(texts, [f"{other[:9]}{text}{other[9:12]}" for text, other in zip(texts, others, strict=True)])]
        row += [found(texts, changed), found(texts, others)]
        print(f"| 40 characters, {language} | {row[0]:.0%} | {row[1]:.0%} | | | {row[2]:.0%} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
