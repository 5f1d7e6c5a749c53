"""What `coherence` knows of English: the surprisal of four letters in a row, and sets of words as bits of hash tables.

benchmarks/make_english.py makes the data file. Its words come from SCOWL (see filters/data/NOTICE.txt for the licence) and from
the documents it was trained on.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from filters.coherence.masks import SPACE, Bits, Bytes, Ints
from filters.coherence.page import BLANK, CLASSES, Hashes, Page, word_hashes

PATH = Path(__file__).parents[1] / "data" / "english.npz"
SIZES = {"known": 24, "common": 20, "beginnings": 20, "names": 20, "openers": 16}
"""Bits of an index into each set. With two probes a word, at most 0.3 % of unknown words are taken for members."""

FUNCTION_WORDS = (
    "a about above after again against all almost also although always am among an and another any are as at be became because "
    "been before being below between both but by can cannot could did do does doing done down during each either enough even "
    "every few first for from further get gets given had has have having he her here his how however i if in instead into is it "
    "its itself just least less let like made make makes many may me might more most much must my neither never no nor not now "
    "of off often on once one only onto or other others our out over own part per perhaps quite rather same see she should since "
    "so some still such than that the their them then there therefore these they this those though through thus to too toward "
    "two under until up upon us use used using very via was we well were what when where whether which while who whom whose why "
    "will with within without would yet you your don't doesn't isn't can't it's i'm you're we're that's let's won't didn't"
).split()


@dataclass(frozen=True)
class WordSet:
    """A set of words as bits of a hash table."""

    bits: Bytes
    size: int

    def holds(self, hashes: Hashes) -> Bits:
        """Whether each word is a member; a few unknown words are taken for members."""
        members = np.ones(len(hashes), bool)
        for probe in _probes(hashes, self.size):
            members &= (self.bits[probe >> 3] >> (probe & 7).astype(np.uint8)) & 1 == 1
        return members


@dataclass(frozen=True)
class English:
    """Everything that the rules look up."""

    spelling: Bytes
    """CLASSES**4 surprisals in tenths of a bit."""
    sign_bits: Bytes
    """128: cost of an ASCII character beyond its class, in tenths of a bit."""
    case_bits: Bytes
    """8 x 128: cost of a letter's case after a character of each kind, in tenths of a bit; 0 for characters that are not
    letters."""
    known: WordSet
    common: WordSet
    beginnings: WordSet
    """Common words cut short: at least three letters, with at least two missing."""
    names: WordSet
    """Words with capitals inside, with the places of the capitals marked."""
    openers: WordSet
    """Words that often start a sentence."""
    function_words: Hashes

    def is_function_word(self, hashes: Hashes) -> Bits:
        """Whether each word is one of FUNCTION_WORDS."""
        places = np.searchsorted(self.function_words, hashes)
        equal: Bits = self.function_words[np.minimum(places, len(self.function_words) - 1)] == hashes
        return equal


@cache
def english() -> English:
    """Read the data file. It is a constant of the package, so each process reads it once."""
    with np.load(PATH, allow_pickle=False) as data:
        sets = {name: WordSet(data[name], size) for name, size in SIZES.items()}
        tables: dict[str, Any] = {"spelling": _surprisals(data["counts"])}
        tables |= {name: data[name] for name in ("sign_bits", "case_bits")} | sets
        return English(**tables, function_words=np.sort(word_hashes(FUNCTION_WORDS)))


SMOOTHING = (0.5, 4.0, 8.0, 10.0)
"""Weight of the lower order, for orders 1 to 4."""


def _surprisals(levels: Bytes) -> Bytes:
    """Surprisal of a character after the three before it, in tenths of a bit, from the counts of four in a row."""
    probability = np.full((CLASSES,) * 4, 1 / CLASSES)
    counts = np.where(levels == 0, 0, 2.0 ** ((levels.astype(np.float32) - 1) / 4)).reshape(probability.shape)
    for order, weight in enumerate(SMOOTHING):
        totals = counts.sum(axis=tuple(range(3 - order)), keepdims=True)
        probability = (totals + weight * probability) / (totals.sum(axis=3, keepdims=True) + weight)
    surprisals: Bytes = np.minimum(np.rint(-10 * np.log2(probability)), 255).astype(np.uint8).reshape(-1)
    return surprisals


def save(path: Path, counts: Ints, sign_bits: Bytes, case_bits: Bytes, **sets: Sequence[str]) -> None:
    """Write the data file. `counts` of four classes in a row are stored as quarters of their logarithm to base 2."""
    levels = np.where(counts == 0, 0, 1 + np.rint(4 * np.log2(np.maximum(counts, 1)))).astype(np.uint8)
    arrays: dict[str, Any] = {"counts": levels, "sign_bits": sign_bits, "case_bits": case_bits}
    for name, words in sets.items():
        bits = np.zeros(1 << SIZES[name], np.uint8)
        hashes = word_hashes([marked(word) for word in words] if name == "names" else words)
        for probe in _probes(hashes, SIZES[name]):
            bits[probe] = 1
        arrays[name] = np.packbits(bits, bitorder="little")
    path.parent.mkdir(exist_ok=True)
    np.savez_compressed(path, **arrays)


def marked(word: str) -> str:
    """Mark the capitals of a word, because hashes ignore case."""
    return "".join(f"^{letter}" if letter.isupper() else letter for letter in word)


def _probes(hashes: Hashes, size: int) -> tuple[Ints, Ints]:
    mask = np.uint64((1 << size) - 1)
    return (hashes >> np.uint64(40) & mask).astype(np.int64), (hashes >> np.uint64(8) & mask).astype(np.int64)


def surprisals(page: Page, english: English) -> tuple[npt.NDArray[np.int64], Ints]:
    """Tenths of a bit of every character from the fourth on, and its position on the page. Runs of blanks count as one."""
    classes, positions = squeezed(page)
    bits = english.spelling[four_grams(classes)].astype(np.int64)
    positions = positions[3:]
    codes = np.minimum(page.codes[positions], 127)
    shown = page.kinds[positions] != SPACE
    costs = english.sign_bits[codes].astype(np.int64) + english.case_bits[page.kinds[positions - 1], codes]
    return bits + np.where(shown, costs, 0), positions


def squeezed(page: Page) -> tuple[Bytes, Ints]:
    """Classes of the page with every run of blanks reduced to one, and the position of each on the page."""
    blank = page.classes == BLANK
    positions = np.flatnonzero(~(blank[1:] & blank[:-1]))
    return page.classes[positions], positions


def four_grams(classes: Bytes) -> Ints:
    """Index into `English.spelling` of every character from the fourth on."""
    wide = classes.astype(np.int32)
    pairs = wide[:-1] * CLASSES + wide[1:]
    return (pairs[:-2] * (CLASSES * CLASSES) + pairs[2:]).astype(np.int64)
