"""Makes filters/data/english.npz: what the filter `coherence` knows about English spelling and words.

python benchmarks/make_english.py --words american-english-huge [british-english-huge] [--names NAMES] [--more DIR ...]

`--words` are SCOWL's lists (Debian: wamerican-huge, wbritish-huge). `--more` are directories with further documents to learn
from: perl-doc, python3-doc and wordnet-base, unpacked. `--names` is a list of names of programs and packages, one per line
(`apt-cache pkgnames`). It learns only from the training packages of text_corpus.
"""

import argparse
import importlib
import re
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from filters.coherence import model
from filters.coherence import page as pages
from filters.coherence.masks import LOWER, SPACE, UPPER

COMMON_WORDS = 12_000
OPENERS = 1_000


def four_gram_counts(texts: list[str]) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Count how often four classes of characters follow each other."""
    counts = np.zeros(pages.CLASSES**4, np.int64)
    for first in range(0, len(texts), 2000):
        grams = model.four_grams(model.squeezed(pages.lay_out(texts[first : first + 2000]))[0])
        counts += np.bincount(grams, minlength=len(counts))
    return counts


def letter_costs(texts: list[str]) -> tuple[np.ndarray[Any, np.dtype[np.uint8]], np.ndarray[Any, np.dtype[np.uint8]]]:
    """Bits of a sign beyond its class (128,), and of a letter's case after each kind of character (8, 128)."""
    occurrences = np.zeros(128, np.int64)
    cases = np.zeros((8, 2), np.int64)
    class_of = np.zeros(128, np.int64)
    for first in range(0, len(texts), 2000):
        page = pages.lay_out(texts[first : first + 2000])
        shown = np.flatnonzero((page.kinds != SPACE) & (page.codes < 128))
        codes = page.codes[shown].astype(np.int64)
        occurrences += np.bincount(codes, minlength=128)
        class_of[codes] = page.classes[shown]
        for case, kind in enumerate((LOWER, UPPER)):
            positions = np.flatnonzero(page.kinds == kind)
            cases[:, case] += np.bincount(page.kinds[positions - 1], minlength=8)
    signs = np.zeros(128)
    for code in range(33, 127):
        if not chr(code).isalnum():
            alike = [other for other in range(33, 127) if class_of[other] == class_of[code] and not chr(other).isalnum()]
            signs[code] = np.log2((occurrences[alike].sum() + len(alike)) / (occurrences[code] + 1))
    cost = -np.log2((cases + 1) / (cases.sum(axis=1, keepdims=True) + 2))
    letters = np.zeros((8, 128))
    letters[:, 97:123], letters[:, 65:91] = cost[:, :1], cost[:, 1:]
    return tuple(np.minimum(np.rint(10 * table), 255).astype(np.uint8) for table in (signs, letters))


def words(texts: list[str]) -> tuple[Counter[str], Counter[str]]:
    """Count words in lower case, and words with capitals inside as they are written."""
    plain: Counter[str] = Counter()
    inner: Counter[str] = Counter()
    for first in range(0, len(texts), 2000):
        page = pages.lay_out(texts[first : first + 2000])
        for a, b in zip(page.word_starts.tolist(), page.word_ends.tolist(), strict=True):
            word = page.text[a:b].replace("\u2019", "'")
            (plain if word[1:].islower() or len(word) == 1 else inner)[word.lower() if word[1:].islower() else word] += 1
    return plain, inner


def wordnet(root: Path) -> list[str]:
    """Return WordNet's definitions and examples."""
    glosses: list[str] = []
    for path in sorted(root.glob("**/wordnet/data.*")):
        for line in path.read_text("latin-1").splitlines():
            _, bar, gloss = line.partition(" | ")
            if bar:
                glosses.append(gloss.strip().replace('"', "").replace("; ", ". "))
    return glosses


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--words", nargs="+", type=Path, required=True)
    parser.add_argument("--names", type=Path)
    parser.add_argument("--more", nargs="*", type=Path, default=[])
    options = parser.parse_args()
    corpus = importlib.import_module("text_corpus")
    split = corpus.sentences(tuple(options.more))
    train = [sentence for _, sentences in split["train"] for sentence in sentences]
    train += [gloss for root in options.more for gloss in wordnet(root)]
    print(len(train), "sentences to learn from", file=sys.stderr)
    listed = {word.strip() for path in options.words for word in path.read_text().splitlines()}
    plain, inner = words(train)
    known = {word.lower() for word in listed} | {word for word, count in plain.items() if count >= 2}
    if options.names is not None:
        known |= set(re.findall(r"[a-z]{4,}", options.names.read_text().lower()))
    common = [word for word, _ in plain.most_common() if word.isalpha() and word in known][:COMMON_WORDS]
    openers = Counter(
        first.lower() for first in (sentence.split()[0] for sentence in train) if first.isalpha() and first.istitle()
    )
    names = {word for word, count in inner.items() if count >= 2 and not word.isupper()}
    sign_bits, case_bits = letter_costs(train)
    model.save(
        model.PATH,
        sign_bits=sign_bits,
        case_bits=case_bits,
        counts=four_gram_counts(train),
        known=sorted(known),
        common=[word for word in common if len(word) > 1],
        beginnings=sorted({word[:cut] for word in common for cut in range(3, len(word) - 1)}),
        names=sorted(names),
        openers=sorted(word for word, _ in openers.most_common(OPENERS)),
    )
    print(model.PATH, model.PATH.stat().st_size, "bytes;", len(known), "words,", len(names), "names", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
