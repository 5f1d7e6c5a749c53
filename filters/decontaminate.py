"""Drop samples that repeat a benchmark: prompt or completion shares runs of words with the benchmark's items.

Two published rules apply. Long run: one shared run of 13 words is contamination (GPT-3, arXiv 2005.14165, appendix C). Short
runs: a text that holds at least `share` of an item's runs of 8 words is contamination (PaLM, arXiv 2204.02311, which takes 70 %,
as we do). An item too short for both rules counts if the text holds all of its words in a row and it has `min_words`. How texts
are compared is described in filters.similarity.word_runs.
"""

import hashlib
import json
from collections import defaultdict
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, Field

from filters.base import Filter, FilterError, LocalPath, Role, Scope, verdict_table
from filters.judging import stored_json
from filters.similarity.word_runs import (
    Ints,
    NumberedWords,
    RunIndex,
    characters_of_run,
    indexed,
    numbered,
    shared_runs,
    words_of,
)
from schemas.sample import Outcome

SPAN_CHARS = 300
_TEXTS = 256
"""Texts that are searched together, so that their arrays stay in the processor's cache."""

Detail = dict[str, Any]


class Benchmark(BaseModel):
    """One benchmark that samples must not repeat."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    name: str
    """Name in verdicts and reports."""
    path: LocalPath
    """JSONL, Parquet, or text with one item per line; relative to the recipe."""
    fields: tuple[str, ...] = ()
    """Columns with an item's text. If empty, every column that holds text. A plain text file has no columns."""


class Config(BaseModel):
    """Parameters of `decontaminate`."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    benchmarks: Annotated[tuple[Benchmark, ...], Field(min_length=1)]
    """Files to compare with."""
    scan: Literal["both", "prompt", "completion"] = "both"
    """Which text of a sample is searched. The prompt is all of its messages."""
    long_run: int = Field(default=13, ge=4, le=50)
    """Words in a run of which a single shared one is enough."""
    short_run: int = Field(default=8, ge=3, le=50)
    """Words in the runs that `share` counts."""
    share: float = Field(default=0.7, gt=0, le=1)
    """Share of an item's short runs from which a text that holds them is contaminated."""
    min_words: int = Field(default=5, ge=1)
    """Leave out items of fewer words, because every text contains `yes`."""


@dataclass(frozen=True)
class _Items:
    """The items of all benchmarks, indexed; I items."""

    labels: list[tuple[str, int]]
    """I: the benchmark, and the line or row from 0."""
    vocabulary: dict[str, int]
    words: NumberedWords
    item_of: Ints
    """The item of each word."""
    runs: Ints
    """I: number of short runs."""
    long: RunIndex
    short: RunIndex
    whole: list[RunIndex]
    """Items shorter than a short run, an index for each length."""


def build(config: Config) -> Filter:
    """Drop `contaminated`. The detail has benchmark, item (its line or row, from 0), rule, and the span in the text."""
    items, digests = _read(config)
    places = [place for place in ("prompt", "completion") if config.scan in (place, "both")]

    def judge(table: pa.Table) -> pa.Table:
        details: list[Detail | None] = [None] * table.num_rows
        for place in places:
            texts = _texts(table, place)
            rows = {text: row for row, text in enumerate(dict.fromkeys(texts))}
            distinct = list(rows)
            matches: list[Detail | None] = []
            for first in range(0, len(distinct), _TEXTS):
                matches += _contaminated(distinct[first : first + _TEXTS], items, config)
            for row, text in enumerate(texts):
                match = matches[rows[text]]
                if details[row] is None and match is not None:
                    details[row] = match | {"where": place}
        return verdict_table(
            [Outcome.KEEP.value if detail is None else Outcome.DROP.value for detail in details],
            ["" if detail is None else "contaminated" for detail in details],
            detail=[None if detail is None else stored_json(detail) for detail in details],
        )

    columns = tuple({"prompt": "messages", "completion": "completion"}[place] for place in places)
    # Files count by their content in the filter's key: where a file lies changes no verdict.
    named = [
        {**benchmark.model_dump(mode="json", exclude={"path"}), "sha256": digests[benchmark.name]}
        for benchmark in config.benchmarks
    ]
    parameters = {**config.model_dump(mode="json"), "benchmarks": named}
    return Filter("decontaminate", "2", Scope.SAMPLE, Role.QUALITY, judge, columns, parameters, cost_us=100.0)


def _read(config: Config) -> tuple[_Items, dict[str, str]]:
    """The items of all benchmarks, and the hash of each benchmark's file."""
    labels: list[tuple[str, int]] = []
    texts: list[list[str]] = []
    digests = {}
    for benchmark in config.benchmarks:
        entries, digests[benchmark.name] = _entries(benchmark)
        split = [(number, words_of(text)) for number, text in entries]
        kept = [(number, words) for number, words in split if len(words) >= config.min_words]
        if not kept:
            raise FilterError(
                f"decontaminate: {benchmark.path}: no item has {config.min_words} words in the fields "
                f"{list(benchmark.fields) or 'of text'}; name its columns in fields"
            )
        labels += [(benchmark.name, number) for number, _ in kept]
        texts += [words for _, words in kept]
    numbering: defaultdict[str, int] = defaultdict(lambda: len(numbering) + 1)  # 0 is a word of no item
    vocabulary = {word: numbering[word] for words in texts for word in words}
    words = numbered(texts, vocabulary)
    sizes = np.diff(words.starts)
    items = _Items(
        labels,
        vocabulary,
        words,
        np.repeat(np.arange(len(texts)), sizes),
        np.maximum(sizes - config.short_run + 1, 0),
        indexed(words, config.long_run),
        indexed(words, config.short_run),
        [indexed(words, int(size), only=sizes == size) for size in np.unique(sizes[sizes < config.short_run])],
    )
    return items, digests


def _entries(benchmark: Benchmark) -> tuple[list[tuple[int, str]], str]:
    """The texts of a benchmark with their line or row, and the hash of its file."""
    path = Path(benchmark.path)
    if not path.is_file():
        raise FilterError(f"decontaminate: parameters.benchmarks: {benchmark.name}: no such file: {benchmark.path}")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if path.suffix in (".parquet", ".pq"):
        rows: list[Any] = pq.read_table(path).to_pylist()
    else:
        lines = path.read_text("utf-8").split("\n")  # JSON may hold the other line ends of Unicode
        rows = [json.loads(line) for line in lines if line.strip()] if path.suffix in (".jsonl", ".ndjson") else lines
    entries = []
    for number, row in enumerate(rows):
        fields = {"": row} if isinstance(row, str) else row
        unknown = [name for name in benchmark.fields if name not in fields]
        if unknown:
            raise FilterError(
                f"decontaminate: {benchmark.path}, row {number}: no field {unknown[0]!r}; it has {', '.join(map(str, fields))}"
            )
        values = [fields[name] for name in benchmark.fields] or list(fields.values())
        entries += [(number, text) for text in values if isinstance(text, str)]
    return entries, digest


def _texts(table: pa.Table, place: str) -> list[str]:
    if place == "completion":
        texts: list[str] = table["completion"].to_pylist()
        return texts
    return ["\n".join(message["content"] for message in messages) for messages in table["messages"].to_pylist()]


def _contaminated(texts: list[str], items: _Items, config: Config) -> list[Detail | None]:
    """For each text the first rule that calls it contaminated, as a detail."""
    words = numbered([words_of(text) for text in texts], items.vocabulary)
    text_of = np.repeat(np.arange(len(texts)), np.diff(words.starts))
    details: list[Detail | None] = [None] * len(texts)

    def note(word: int, item_word: int, size: int, rule: str) -> None:
        text = int(text_of[word])
        if details[text] is None:
            benchmark, number = items.labels[int(items.item_of[item_word])]
            start, end = characters_of_run(texts[text], word - int(words.starts[text]), size)
            span = texts[text][start : min(end, start + SPAN_CHARS)]
            details[text] = {"benchmark": benchmark, "item": number, "rule": rule, "start": start, "end": end, "span": span}

    for word, item_word in _first_of_each(shared_runs(words, items.long, items.words), text_of):
        note(word, item_word, config.long_run, f"{config.long_run} words")
    for word, item_word in _short_runs(shared_runs(words, items.short, items.words), text_of, items, config.share):
        note(word, item_word, config.short_run, f"{config.share:.0%} of its runs of {config.short_run} words")
    for index in items.whole:
        for word, item_word in _first_of_each(shared_runs(words, index, items.words), text_of):
            note(word, item_word, index.size, f"all of its {index.size} words")
    return details


def _first_of_each(hits: Ints, text_of: Ints) -> list[list[int]]:
    """The first hit of each text."""
    rows: list[list[int]] = hits[np.unique(text_of[hits[:, 0]], return_index=True)[1]].tolist()
    return rows


def _short_runs(hits: Ints, text_of: Ints, items: _Items, share: float) -> list[list[int]]:
    """The first hit of each text and item of which the text holds at least `share` of the short runs."""
    hit_texts = text_of[hits[:, 0]]
    bounds = np.flatnonzero(np.diff(hit_texts, prepend=-1, append=-1)).tolist() if len(hits) else []
    first: list[list[int]] = []
    for start, end in pairwise(bounds):
        in_text = hits[start:end]
        shared = np.unique(in_text[:, 1])  # each run of an item counts once
        numbers, counts = np.unique(items.item_of[shared], return_counts=True)
        item_of_hit = items.item_of[in_text[:, 1]]
        first += [
            in_text[item_of_hit == number][0].tolist() for number in numbers[counts >= share * items.runs[numbers]].tolist()
        ]
    return first
