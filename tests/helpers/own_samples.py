"""Imported samples that are related: copies, near copies, near misses and misses."""

from pathlib import Path
from typing import Any

from datasets import load_dataset

Rows = list[dict[str, Any]]
ANSWERS = (
    "First we add {a} and {b}, the ones and then the tens, and so we come to the result, which is A: {c}",
    "There are {a} apples here and {b} apples there; whoever counts them one by one will at last arrive at A: {c}",
)


def related_samples(prompts: int = 6) -> Rows:
    """Of each prompt: two answers in other words, a copy of each (one in capitals, one with a word more), one that is a number
    off, one cut short, one of other words and wrong."""
    rows: Rows = []
    for a in range(10, 10 + prompts):
        b, c = 2 * a + 1, 3 * a + 1
        right = [answer.format(a=a, b=b, c=c) for answer in ANSWERS]
        texts = [*right, right[0].upper(), right[1].replace("whoever", "and whoever")]
        texts += [ANSWERS[0].format(a=a, b=b, c=c + 1), ANSWERS[1].format(a=a, b=b, c=c - 7)]
        texts += ["I really do not know what this is. A: 0"]
        rows += [{"prompt": f"{a}+{b}?", "reference": str(c), "completion": text} for text in texts]
    return rows


def view_rows(run: Path, view: str) -> Rows:
    """The rows of a view, as `datasets` reads them."""
    return list(load_dataset(str(run / "dataset"), view, split="train"))
