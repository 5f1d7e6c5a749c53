"""A corpus with known copies, for benchmarks/dedupe.py: samples of many prompts, 60 % of them distinct, 40 % copies.

python benchmarks/dedupe_corpus.py 1000000 short corpus.parquet

A group of 256 samples shares a pool of sentences, which makes up a third of each sample. A copy is of a sample of its group,
one in ten of a sample of another group; popular samples are copied more often. A copy is exact (17 %), changed in case, white
space and signs (20 %), in its numbers (18 %), in 0.5 to 10 % of its words (28 %), in the order of its sentences (10 %), or cut
short (7 %). Words are made up, with frequencies as in a language (Zipf). `copy_of` is the copied row, -1 for none; `change` is
the kind."""

import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

GROUP = 256
SENTENCES = {"short": 4, "long": 22}
CHANGES = ("exact", "form", "numbers", "words", "order", "cut")
SHARES = (0.17, 0.20, 0.18, 0.28, 0.10, 0.07)
_SYLLABLES = [a + b for a in "bdfgklmnprstvz" for b in ("a", "e", "i", "o", "u", "an", "er", "ist")]

Text = list[list[str]]


def corpus(rows: int, length: str, seed: int = 0) -> pa.Table:
    """Columns text, group, copy_of, change (index into CHANGES, -1 for none)."""
    rng = np.random.default_rng(seed)
    words = ["".join(rng.choice(_SYLLABLES, rng.integers(1, 5))) for _ in range(30_000)]
    weights = 1 / np.arange(20, 30_020) ** 0.9
    edges = np.cumsum(weights / weights.sum())
    texts: list[str] = []
    kept: list[Text] = []
    copy_of, change = np.full(rows, -1, np.int64), np.full(rows, -1, np.int8)

    def new_sentence() -> list[str]:
        size = int(rng.integers(7, 16))
        sentence = [words[index] for index in np.minimum(np.searchsorted(edges, rng.random(size)), 29_999)]
        if rng.random() < 0.4:
            sentence[int(rng.integers(size))] = str(int(rng.integers(2, 5_000)))
        return sentence

    earlier: list[int] = []
    for row in range(rows):
        if row % GROUP == 0:
            pool = [new_sentence() for _ in range(40)]
            own: list[int] = []
        if own and rng.random() < 0.4:
            root = own[int(len(own) * rng.random() ** 2)]
            if earlier and rng.random() < 0.1:
                root = earlier[int(rng.integers(len(earlier)))]
            kind = int(rng.choice(len(CHANGES), p=SHARES))
            kept.append(changed(kept[root], kind, rng, words))
            copy_of[row], change[row] = root, kind
            texts.append(written(kept[-1], rng if CHANGES[kind] == "form" else None))
        else:
            count = max(1, int(rng.normal(SENTENCES[length], SENTENCES[length] / 6)))
            kept.append([pool[int(rng.integers(40))] if rng.random() < 0.35 else new_sentence() for _ in range(count)])
            texts.append(written(kept[-1], None))
            own.append(row)
        if row % GROUP == GROUP - 1:
            earlier = [*earlier, *own][-20_000:]
    return pa.table({"text": texts, "group": np.arange(rows) // GROUP, "copy_of": copy_of, "change": change})


def changed(text: Text, kind: int, rng: np.random.Generator, words: list[str]) -> Text:
    """Return a copy of a text with the change CHANGES[kind] (`exact` and `form` change no word)."""
    copy = [list(sentence) for sentence in text]
    if CHANGES[kind] == "numbers":
        for sentence in copy:
            for index, word in enumerate(sentence):
                if word.isdigit():
                    sentence[index] = str(int(word) + int(rng.integers(1, 9)))
    elif CHANGES[kind] == "words":
        total = sum(map(len, copy))
        for _ in range(max(1, round(total * rng.uniform(0.005, 0.1)))):
            sentence = copy[int(rng.integers(len(copy)))]
            index, way = int(rng.integers(len(sentence))), int(rng.integers(3))
            if way == 0 or len(sentence) < 3:
                sentence[index] = words[int(rng.integers(len(words)))]
            elif way == 1:
                del sentence[index]
            else:
                sentence.insert(index, words[int(rng.integers(len(words)))])
    elif CHANGES[kind] == "order" and len(copy) > 1:
        i, j = rng.choice(len(copy), 2, replace=False)
        copy[i], copy[j] = copy[j], copy[i]
    elif CHANGES[kind] == "cut":
        flat = sum(map(len, copy))
        left = max(3, int(flat * rng.uniform(0.6, 0.95)))
        short: Text = []
        for sentence in copy:
            if left <= 0:
                break
            short.append(sentence[:left])
            left -= len(sentence)
        copy = short
    return copy


def written(text: Text, form: np.random.Generator | None) -> str:
    """Return the text as sentences; with `form`, in other case, white space or signs."""
    plain = ". ".join(" ".join(words).capitalize() for words in text) + "."
    if form is None:
        return plain
    way = int(form.integers(3))
    return (
        plain.upper() if way == 0 else plain.replace(". ", ".\n\n") if way == 1 else plain.replace(". ", "; ").rstrip(".") + "!"
    )


def read(rows: int, length: str, folder: Path) -> pa.Table:
    """Return the corpus of a size, generated once."""
    path = folder / f"{length}-{rows}.parquet"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        pq.write_table(corpus(rows, length), path)
    return pq.read_table(path)


if __name__ == "__main__":
    pq.write_table(corpus(int(sys.argv[1]), sys.argv[2]), sys.argv[3])
