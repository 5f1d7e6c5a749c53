"""Drops samples that repeat a benchmark: shared runs of words between prompt or completion and the benchmark's items.

Two rules, of those in use. 13 words: one shared run of 13 words is contamination (GPT-3, arXiv 2005.14165, appendix C). 8
words: a text in which at least `share` of an item's runs of 8 words occur is contamination (PaLM, arXiv 2204.02311, takes 70 %;
so do we). An item too short for a rule is found where the text holds all of its words in a row, if it has `min_words`.

Texts are compared as words: NFKC, folded case, letters and digits only. Words are numbered by the items' vocabulary, for a run
with any other word is no item's. Runs are hashed to 64 bits, sieved by the hash's first bits, and looked up in a sorted array;
every hit is checked against the words themselves, so that a collision drops nothing.
"""

import hashlib
import json
import re
import unicodedata
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise, repeat
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from filters.base import Filter, FilterError, LocalPath, Role, Scope, verdict_table
from filters.judging import stored_json
from schemas.sample import Outcome

SPAN_CHARS = 300
_WORD = re.compile(r"[^\W_]+")
_NO_WORD_CHARS = bytes(code if chr(code).isalnum() and code < 128 else 32 for code in range(256))
_MULTIPLIER = 0x9E3779B97F4A7C15
"""Odd, and so it has an inverse modulo 2**64."""
_TEXTS = 256
"""Texts that are searched at a time: their arrays stay in the cache."""
_PAIRS = 1 << 17
"""Hits that are checked at a time: 13 words of each, of both texts, are 13 MB."""

Hashes = NDArray[np.uint64]


class Benchmark(BaseModel):
    """One benchmark to keep clear of."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    name: str
    """What reports call it."""
    path: LocalPath
    """JSONL, Parquet, or text with an item per line; relative to the recipe."""
    fields: tuple[str, ...] = ()
    """Columns that hold an item's text; none: every column that is text. A plain text file has none."""


class Config(BaseModel):
    """Parameters of `decontaminate`."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    benchmarks: Annotated[tuple[Benchmark, ...], Field(min_length=1)]
    """Files to compare with."""
    scan: Literal["both", "prompt", "completion"] = "both"
    """Which text of a sample is searched; the prompt is all of its messages."""
    long_run: int = Field(default=13, ge=4, le=50)
    """Words of which one shared run is enough."""
    short_run: int = Field(default=8, ge=3, le=50)
    """Words of the runs that are counted."""
    share: float = Field(default=0.7, gt=0, le=1)
    """Share of an item's short runs that a text must hold."""
    min_words: int = Field(default=5, ge=1)
    """Items of fewer words are left out: `yes` is in every text."""


@dataclass(frozen=True)
class _Words:
    """The words of texts, one after the other, by their numbers in the vocabulary, and where each text begins.

    A run's hash is a polynomial of its words' hashes: a difference of two `sums`, divided by the power that it begins at.
    """

    numbers: NDArray[np.int32]
    starts: NDArray[np.int64]
    ends: NDArray[np.int64]
    """For each word, where its text ends."""
    sums: Hashes
    inverses: Hashes


@dataclass(frozen=True)
class _Index:
    """Sorted hashes of runs, the word each begins at, and which first bits there are."""

    size: int
    hashes: Hashes
    at: NDArray[np.int64]
    sieve: NDArray[np.bool_]
    shift: np.uint64


def words_of(text: str) -> list[str]:
    """A text as it is compared."""
    if text.isascii():  # the same, three times as fast
        return text.casefold().encode().translate(_NO_WORD_CHARS).decode().split()
    text = unicodedata.normalize("NFKC", text)
    found: list[str] = _WORD.findall(text.casefold())
    return found


def build(config: Config) -> Filter:
    """Drop `contaminated`; the detail has benchmark, item (its line or row, from 0), rule, and the span in the text."""
    named: list[tuple[str, int]] = []
    texts: list[list[str]] = []
    digests = {}
    for benchmark in config.benchmarks:
        items, digests[benchmark.name] = _items(benchmark)
        split = [(number, words_of(item)) for number, item in items]
        kept = [(number, words) for number, words in split if len(words) >= config.min_words]
        if not kept:
            raise FilterError(
                f"decontaminate: {benchmark.path}: no item has {config.min_words} words in the fields "
                f"{list(benchmark.fields) or 'of text'}; name its columns in fields"
            )
        named += [(benchmark.name, number) for number, _ in kept]
        texts += [words for _, words in kept]
    numbering: defaultdict[str, int] = defaultdict(lambda: len(numbering) + 1)  # 0 is any other word
    vocabulary = {word: numbering[word] for words in texts for word in words}
    items_words = _split(texts, vocabulary)
    sizes = np.diff(items_words.starts)
    item_of = np.repeat(np.arange(len(texts)), sizes)
    indices = [_index(items_words, item_of, size) for size in (config.long_run, config.short_run)]
    runs = np.maximum(sizes - config.short_run + 1, 0)
    whole = {
        size: _index(items_words, item_of, int(size), only=sizes == size) for size in np.unique(sizes[sizes < config.short_run])
    }

    def judge(table: pa.Table) -> pa.Table:
        found: list[dict[str, Any] | None] = [None] * table.num_rows
        for where in ("prompt", "completion"):
            if config.scan in (where, "both"):
                given = _texts(table, where)
                distinct = {text: number for number, text in enumerate(dict.fromkeys(given))}
                texts = list(distinct)
                pieces = [_searched(texts[at : at + _TEXTS], where) for at in range(0, len(texts), _TEXTS)]
                said = [one for piece in pieces for one in piece]
                for row, text in enumerate(given):
                    found[row] = found[row] or said[distinct[text]]
        return verdict_table(
            [Outcome.KEEP.value if one is None else Outcome.DROP.value for one in found],
            ["" if one is None else "contaminated" for one in found],
            detail=[None if one is None else stored_json(one) for one in found],
        )

    def _searched(texts: list[str], where: str) -> list[dict[str, Any] | None]:
        given = _split([words_of(text) for text in texts], vocabulary)
        text_of = np.repeat(np.arange(len(texts)), np.diff(given.starts))
        found: list[dict[str, Any] | None] = [None] * len(texts)

        def note(at: int, item_at: int, size: int, rule: str) -> None:
            text = int(text_of[at])
            if found[text] is None:
                name, number = named[int(item_of[item_at])]
                start, end = _span(texts[text], at - int(given.starts[text]), size)
                span = texts[text][start : min(end, start + SPAN_CHARS)]
                found[text] = {
                    "benchmark": name, "item": number, "rule": rule, "where": where, "start": start, "end": end, "span": span,
                }  # fmt: skip

        def first_of_each(hits: NDArray[np.int64]) -> list[list[int]]:
            rows: list[list[int]] = hits[np.unique(text_of[hits[:, 0]], return_index=True)[1]].tolist()
            return rows

        for at, item_at in first_of_each(_hits(given, indices[0], items_words)):
            note(at, item_at, config.long_run, f"{config.long_run} words")
        hits = _hits(given, indices[1], items_words)
        hit_texts = text_of[hits[:, 0]]
        bounds = np.flatnonzero(np.diff(hit_texts, prepend=-1, append=-1)).tolist() if len(hits) else []
        for begin, end in pairwise(bounds):
            mine = hits[begin:end]
            shared = np.unique(mine[:, 1])  # each of an item's runs counts once
            items, counts = np.unique(item_of[shared], return_counts=True)
            for item in items[counts >= config.share * runs[items]].tolist():
                at, item_at = mine[item_of[mine[:, 1]] == item][0].tolist()
                note(at, item_at, config.short_run, f"{config.share:.0%} of its runs of {config.short_run} words")
        for size, index in whole.items():
            for at, item_at in first_of_each(_hits(given, index, items_words)):
                note(at, item_at, int(size), f"all of its {size} words")
        return found

    columns = tuple(
        name for name, where in (("messages", "prompt"), ("completion", "completion")) if config.scan in (where, "both")
    )
    # The files by what is in them: where they lie changes no verdict.
    named_files = [{**one.model_dump(mode="json", exclude={"path"}), "sha256": digests[one.name]} for one in config.benchmarks]
    parameters = {**config.model_dump(mode="json"), "benchmarks": named_files}
    return Filter("decontaminate", "1", Scope.SAMPLE, Role.QUALITY, judge, columns, parameters, cost_us=100.0)


# -- inside ------------------------------------------------------------------------------------------------------------------


def _items(benchmark: Benchmark) -> tuple[list[tuple[int, str]], str]:
    """The texts of a benchmark with their line or row, and the hash of its file."""
    path = Path(benchmark.path)
    if not path.is_file():
        raise FilterError(f"decontaminate: parameters.benchmarks: {benchmark.name}: no such file: {benchmark.path}")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if path.suffix in (".parquet", ".pq"):
        rows: list[Any] = pq.read_table(path).to_pylist()
    else:
        lines = path.read_text("utf-8").split("\n")  # not at every line end of Unicode: JSON may hold those
        rows = [json.loads(line) for line in lines if line.strip()] if path.suffix in (".jsonl", ".ndjson") else lines
    found = []
    for number, row in enumerate(rows):
        fields = {"": row} if isinstance(row, str) else row
        unknown = [name for name in benchmark.fields if name not in fields]
        if unknown:
            raise FilterError(
                f"decontaminate: {benchmark.path}, row {number}: no field {unknown[0]!r}; it has {', '.join(map(str, fields))}"
            )
        wanted = [fields[name] for name in benchmark.fields] or list(fields.values())
        found += [(number, text) for text in wanted if isinstance(text, str)]
    return found, digest


def _texts(table: pa.Table, where: str) -> list[str]:
    if where == "completion":
        texts: list[str] = table["completion"].to_pylist()
        return texts
    return ["\n".join(message["content"] for message in messages) for messages in table["messages"].to_pylist()]


def _split(texts: Sequence[list[str]], vocabulary: Mapping[str, int]) -> _Words:
    starts = np.zeros(len(texts) + 1, np.int64)
    np.cumsum([len(words) for words in texts], out=starts[1:])
    every = map(vocabulary.get, chain.from_iterable(texts), repeat(0))
    numbers = np.fromiter(every, np.int32, int(starts[-1]))
    words = numbers.astype(np.uint64) * np.uint64(0xD6E8FEB86659FD93)
    words = (words ^ (words >> np.uint64(32))) * np.uint64(0xC2B2AE3D27D4EB4F)
    sums = np.zeros(len(words) + 1, np.uint64)
    np.cumsum(words * _powers(_MULTIPLIER, len(words)), out=sums[1:])
    ends = np.repeat(starts[1:], np.diff(starts))
    return _Words(numbers, starts, ends, sums, _powers(pow(_MULTIPLIER, -1, 2**64), len(words)))


def _run_hashes(given: _Words, size: int) -> tuple[Hashes, NDArray[np.int64]]:
    """The hash of every run of `size` words that lies in one text, and the word that it begins at."""
    count = len(given.numbers) - size + 1
    if count <= 0:
        return np.zeros(0, np.uint64), np.zeros(0, np.int64)
    at = np.flatnonzero(np.arange(size, size + count) <= given.ends[:count])
    return (given.sums[at + size] - given.sums[at]) * given.inverses[at], at


def _powers(base: int, count: int) -> Hashes:
    factors = np.full(count, base, np.uint64)
    factors[:1] = 1
    return np.multiply.accumulate(factors)


def _index(items: _Words, item_of: NDArray[np.int64], size: int, only: NDArray[np.bool_] | None = None) -> _Index:
    hashes, at = _run_hashes(items, size)
    if only is not None:
        keep = only[item_of[at]]
        hashes, at = hashes[keep], at[keep]
    order = np.argsort(hashes, kind="stable")
    # Sixteen places and more for each run, so that one in sixteen other runs is looked up at the most; 64 MB at the most.
    bits = min(max(len(hashes).bit_length() + 4, 16), 26)
    shift = np.uint64(64 - bits)
    sieve = np.zeros(1 << bits, np.bool_)
    sieve[hashes >> shift] = True
    return _Index(size, hashes[order], at[order], sieve, shift)


def _hits(given: _Words, index: _Index, items: _Words) -> NDArray[np.int64]:
    """(word of the text, word of the items) of every run that both have, in order; the words themselves are compared."""
    hashes, at = _run_hashes(given, index.size)
    seen = index.sieve[hashes >> index.shift]
    hashes, at = hashes[seen], at[seen]
    low = np.searchsorted(index.hashes, hashes, side="left")
    ends = np.cumsum(np.searchsorted(index.hashes, hashes, side="right") - low)
    words = np.arange(index.size)
    found = [np.zeros((0, 2), np.int64)]
    for begin in range(0, int(ends[-1]) if len(ends) else 0, _PAIRS):
        pairs = np.arange(begin, min(begin + _PAIRS, int(ends[-1])))
        run = np.searchsorted(ends, pairs, side="right")
        item_at = index.at[low[run] + pairs - np.concatenate(([0], ends))[run]]
        same = (given.numbers[at[run][:, None] + words] == items.numbers[item_at[:, None] + words]).all(axis=1)
        found.append(np.stack((at[run], item_at), axis=1)[same])
    return np.concatenate(found)


def _span(text: str, word: int, size: int) -> tuple[int, int]:
    """Where a run of words stands in a text; the whole text where folding changed how many words there are."""
    places = [match.span() for match in _WORD.finditer(text)]
    if len(places) != len(words_of(text)):
        return 0, len(text)
    return places[word][0], places[word + size - 1][1]
