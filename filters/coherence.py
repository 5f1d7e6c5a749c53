"""Drops prose that broke while it was sampled: noise, made-up and glued words, flipped case, foreign script, mojibake, loops, and
texts that stop in the midst of a word.

At temperature 1 a model now and then draws a token from the far tail and goes on from there. What comes of it is found by rules
that know English (filters.coherence_rules: the surprisal of letters, word lists, where capitals stand) and by some that know no
language at all. Code, formulas, markup, tables and addresses are left alone; what is not English prose is looked at for loops,
mojibake and foreign script only. A text is read in windows of at most 250 characters, and the worst finding decides.

Thresholds are set so that 0.7 to 0.9 % of clean sentences are flagged (sentences of technical documents, which are harder than
stories); benchmarks/verify_text.py measures that, and how much is found of each kind of splice. What it cannot see: two words
glued whose sum looks like a word, a cut between or within words whose halves make a likely word, salads of real words.

Per-token surprisal (`surprisal`, off by default): the highest mean of five tokens in a row, where the pool has log-probabilities.
What it adds, with SmolLM2-135M and a threshold (11.5 nats) that flags 1 % more of the clean sentences, 100 to 200 of each kind:
salads of words 3 -> 41 %, words cut and glued to the next 3 -> 34 %, words cut short 1 -> 20 %, two glued words 12 -> 18 %, other
kinds 1 to 3 % more. The threshold depends on the model and the text, so there is no default: read the `score` of a first run.
"""

import itertools
import re
from typing import Annotated, Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from filters.base import Filter, Role, Scope, verdict_table
from filters.coherence_model import English, english
from filters.coherence_page import LOWER, Ints, Page, lay_out
from filters.coherence_rules import Found, Words, case, full_stops, noise, signs, unknown_words, words_of
from filters.judging import stored_json
from schemas.sample import Outcome

Fault = Literal[
    "noise", "strange_word", "glued_words", "case_flip", "foreign_script", "mojibake", "loop", "cut_word", "surprising"
]
SURE = 0.001
"""Least score of the rules that report no doubtful cases, whose findings score 1."""
NOISE, SIGNS, LETTERS, GLUED, CAMEL, STOPS, FLIPS = 58.0, 4.5, 8.3, 2.5, 4.5, 2.0, 2.0
"""Scores from which a finding of filters.coherence_rules is a fault; each flags 0.1 to 0.4 % of clean sentences."""
SPAN_CHARS = 200
BATCH_CHARS = 2_000_000
"""Characters laid out at once: some 100 bytes of arrays each."""
RUN = 5
"""Tokens in a row whose mean surprisal counts."""


class Config(BaseModel):
    """Parameters of `coherence`."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    ignore: tuple[Fault, ...] = ()
    """Faults that are not looked for."""
    windows: int = Field(default=1, ge=1)
    """Windows with a fault from which a sample is dropped: long texts have more chances to be flagged by mistake."""
    surprisal: Annotated[float, Field(gt=0)] | None = None
    """Nats: drop where five tokens in a row have a higher mean surprisal (minus log-probability); null leaves it out."""


def build(config: Config) -> Filter:
    """Drop `noise`, `strange_word`, `glued_words`, `case_flip`, `foreign_script`, `mojibake`, `loop`, `cut_word`, `surprising`.
    The score is the share of windows without a fault, 1 for a text without words."""

    def judge(table: pa.Table) -> pa.Table:
        texts = table["completion"].to_pylist()
        worst: list[dict[str, Any] | None] = []
        scores: list[float] = []
        for first, last in _cuts([len(text) for text in texts]):
            found, clean = _faults(texts[first:last], config)
            worst += found
            scores += clean
        if config.surprisal is not None:
            _add_surprising(table["logprobs"], config.surprisal, worst)
        return verdict_table(
            [(Outcome.KEEP if one is None else Outcome.DROP).value for one in worst],
            ["" if one is None else one["fault"] for one in worst],
            scores,
            [None if one is None else stored_json(one) for one in worst],
        )

    columns = ("completion",) if config.surprisal is None else ("completion", "logprobs")
    parameters = config.model_dump(mode="json")
    return Filter("coherence", "1", Scope.SAMPLE, Role.QUALITY, judge, columns, parameters, cost_us=60.0)


def _cuts(lengths: list[int]) -> list[tuple[int, int]]:
    """Ranges of texts that are laid out together."""
    cuts, first, size = [], 0, 0
    for at, length in enumerate(lengths):
        if size and size + length > BATCH_CHARS:
            cuts.append((first, at))
            first, size = at, 0
        size += length
    return [*cuts, (first, len(lengths))] if lengths else []


def _faults(texts: list[str], config: Config) -> tuple[list[dict[str, Any] | None], list[float]]:
    """The worst fault of each text, and the share of its windows that have none."""
    page, known = lay_out(texts), english()
    words, prose = words_of(page, known)
    unknown, capitals = unknown_words(page, known, words), case(page, known, words)
    # What needs no threshold comes before all else.
    found: list[tuple[str, Found, float]] = [
        ("mojibake", _mojibake(page), SURE),
        ("loop", _loops(page), SURE),
        ("foreign_script", _foreign(page), SURE),
        ("noise", _whole(page, noise(page, known, prose)), NOISE),
        ("noise", signs(page, prose), SIGNS),
        ("strange_word", unknown["letters"], LETTERS),
        ("glued_words", unknown["glued"], GLUED),
        ("glued_words", capitals["camel"], CAMEL),
        ("glued_words", full_stops(page, known, words), STOPS),
        ("case_flip", capitals["flips"], FLIPS),
        ("cut_word", _cut_words(page, known, words), 1.0),
    ]
    worst: list[dict[str, Any] | None] = [None] * len(texts)
    badness = np.zeros(len(texts))
    flagged: list[Ints] = []
    for fault, spans, least in found:
        if fault in config.ignore:
            continue
        over = spans.scores >= least
        starts, ends, by = spans.starts[over], spans.ends[over], spans.scores[over] / least
        flagged.append(page.window[starts].astype(np.int64))
        for start, end, ratio in zip(starts.tolist(), ends.tolist(), by.tolist(), strict=True):
            document = int(page.document[start])
            if ratio > badness[document]:
                badness[document] = ratio
                begin = start - int(page.starts[document])
                span = page.text[start : min(end, start + SPAN_CHARS)]
                score = round(ratio * least, 3)
                worst[document] = {"fault": fault, "start": begin, "end": begin + end - start, "span": span, "score": score}
    bad = np.unique(np.concatenate(flagged)) if flagged else np.zeros(0, np.int64)
    first = np.searchsorted(page.window, bad)
    per_text = np.bincount(page.document[first], minlength=len(texts)) if len(bad) else np.zeros(len(texts), np.int64)
    for at in np.flatnonzero(per_text):
        if per_text[at] < config.windows:
            worst[at] = None
    for at, one in enumerate(worst):
        if one is not None:
            one |= {"windows": int(page.windows[at]), "flagged": int(per_text[at])}
    return worst, np.clip(1 - per_text / np.maximum(page.windows, 1), 0, 1).tolist()


def _whole(page: Page, found: Found) -> Found:
    """Spans up to the ends of their tokens."""
    if not len(page.token_starts):
        return found
    first = np.maximum(np.searchsorted(page.token_starts, found.starts, side="right") - 1, 0)
    last = np.minimum(np.searchsorted(page.token_ends, found.ends), len(page.token_ends) - 1)
    starts = np.where(page.token_ends[first] > found.starts, page.token_starts[first], found.starts)
    ends = np.where(page.token_starts[last] < found.ends, page.token_ends[last], found.ends)
    return Found.of(starts, ends, found.scores)


# -- rules that know no language -----------------------------------------------------------------------------------------


_HIGH = re.compile(r"[\x80-\uffff]{2,}")
_CP1252 = {ord(bytes([code]).decode("cp1252")): code for code in range(128, 256) if code not in (0x81, 0x8D, 0x8F, 0x90, 0x9D)}
_BYTES = {**{code: code for code in range(128, 256)}, **_CP1252}


def _mojibake(page: Page) -> Found:
    """UTF-8 that was read as Windows-1252 or Latin-1, and U+FFFD, which stands for what could not be read."""
    spans = [(at, at + 1) for at in np.flatnonzero(page.codes == 0xFFFD).tolist()]
    if (page.codes > 127).any():
        for match in _HIGH.finditer(page.text):
            codes = list(itertools.takewhile(lambda code: code >= 0, (_BYTES.get(ord(letter), -1) for letter in match[0])))
            try:
                bytes(codes).decode("utf-8")
            except UnicodeDecodeError as error:
                if error.start < 2:
                    continue
            if len(codes) < 2:
                continue
            spans.append(match.span())
    return _found(spans)


_SCRIPTS = (
    (0x0000, 0), (0x0041, 1), (0x005B, 0), (0x0061, 1), (0x007B, 0), (0x00C0, 1), (0x0250, 0), (0x0370, 2), (0x0400, 3),
    (0x0530, 4), (0x0590, 5), (0x0600, 6), (0x0780, 0), (0x0900, 7), (0x0E00, 8), (0x0E80, 0), (0x1100, 9), (0x1200, 0),
    (0x1E00, 1), (0x1F00, 2), (0x2000, 0), (0x3040, 10), (0x3130, 9), (0x3190, 0), (0x3400, 10), (0xA000, 0), (0xAC00, 9),
    (0xD7B0, 0), (0xF900, 10), (0xFB00, 0),
)  # fmt: skip
_SCRIPT_STARTS = np.array([start for start, _ in _SCRIPTS])
_SCRIPT_NAMES = np.array([name for _, name in _SCRIPTS], np.uint8)
LATIN, GREEK = 1, 2
RUNS = 3
_QUOTES = frozenset("\"'()[]{}<>\u00ab\u00bb\u2018\u2019\u201c\u201d\u300c\u300d=:/\x00\n*_|`")


def _foreign(page: Page) -> Found:
    """Runs of another script in Latin text, neither quoted nor in brackets. Greek wants three letters: one or two are symbols. A
    text with more than three such runs, or with three letters in ten of that script, is bilingual and left alone."""
    if not (page.codes > 0x36F).any():
        return _found([])
    script = _SCRIPT_NAMES[np.searchsorted(_SCRIPT_STARTS, page.codes, side="right") - 1]
    script[page.codes > 0xFFFF] = 0
    script[page.masked] = 0
    spans = []
    for document in np.unique(page.document[np.flatnonzero(script > LATIN)]).tolist():
        own = slice(int(page.starts[document]), int(page.ends[document]))
        counts = np.bincount(script[own], minlength=11)
        letters = counts[1:].sum()
        if counts[LATIN] < 0.8 * letters or letters < 20:
            continue
        for kind in np.flatnonzero(counts[2:]) + 2:
            inside = np.concatenate(([False], script[own] == kind, [False]))
            edges = np.flatnonzero(np.diff(inside.view(np.int8))) + own.start
            if counts[kind] >= 0.3 * letters or len(edges) > 2 * RUNS:
                continue
            for start, end in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
                quoted = page.text[start - 1] in _QUOTES or page.text[end : end + 2].lstrip(" ")[:1] in _QUOTES
                if end - start >= (3 if kind == GREEK else 2) and not quoted:
                    spans.append((start, end))
    return _found(spans)


PERIODS = 40
"""Longest loop, in words."""


def _loops(page: Page) -> Found:
    """The same words over and over: four times up to eight words, three times beyond, and at least ten words in all. Lists whose
    items begin alike are none: every word has to repeat."""
    hashes = page.hashes(page.word_starts, page.word_ends)
    document = page.document[page.word_starts] if len(hashes) else np.zeros(0, np.int32)
    spans: list[tuple[int, int]] = []
    for period in range(1, min(PERIODS, len(hashes) - 1) + 1):
        again = (hashes[period:] == hashes[:-period]) & (document[period:] == document[:-period])
        edges = np.flatnonzero(np.diff(np.concatenate(([False], again, [False])).view(np.int8)))
        least = max(10 - period, (3 if period <= 8 else 2) * period)
        long = edges[1::2] - edges[::2] >= least
        for first, last in zip(edges[::2][long].tolist(), edges[1::2][long].tolist(), strict=True):
            spans.append((int(page.word_starts[first]), int(page.word_ends[last + period - 1])))
    spans += [match.span() for match in _LETTER_LOOP.finditer(page.text)]
    return _found(spans)


_LETTER_LOOP = re.compile(r"([^\W\d_])\1{11,}|([^\W\d_]{2,4})\2{7,}")


def _cut_words(page: Page, known: English, words: Words) -> Found:
    """A text of twenty words or more whose last word is the beginning of a common one, and no word itself."""
    if not len(page.word_starts):
        return _found([])
    counts = np.bincount(page.document[page.word_starts], minlength=len(page.starts))
    last = np.cumsum(counts) - 1
    document = np.flatnonzero(counts >= 20)
    last = last[document]
    ends = np.array([page.starts[at] + len(page.text[page.starts[at] : page.ends[at]].rstrip()) for at in document], np.int64)
    last = last[page.word_ends[last] == ends]
    lower = page.kinds[page.word_starts[last]] == LOWER
    last = last[lower & words.prose[last] & words.plain[last]]
    hashes = page.hashes(page.word_starts[last], page.word_ends[last])
    cut = known.beginnings.holds(hashes) & ~known.known.holds(hashes)
    return _found(list(zip(page.word_starts[last][cut].tolist(), page.word_ends[last][cut].tolist(), strict=True)))


def _found(spans: list[tuple[int, int]]) -> Found:
    both = np.array(spans, np.int64).reshape(-1, 2)
    return Found.of(both[:, 0], both[:, 1], np.ones(len(both)))


def _add_surprising(column: pa.ChunkedArray, most: float, worst: list[dict[str, Any] | None]) -> None:
    """Note the runs of tokens that are above the bound, where nothing else was found. Token numbers count from 0."""
    lists = column.combine_chunks()
    values = np.concatenate(([0.0], np.cumsum(-lists.values.to_numpy(zero_copy_only=False).astype(np.float64))))
    offsets, present = lists.offsets.to_numpy(), lists.is_valid().to_numpy(zero_copy_only=False)
    if len(values) <= RUN:
        return
    means = (values[RUN:] - values[:-RUN]) / RUN
    for row, (start, end) in enumerate(zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True)):
        if not present[row] or end - start < RUN or worst[row] is not None:
            continue
        own = means[start : end - RUN + 1]
        at = int(own.argmax())
        if own[at] > most:
            worst[row] = {"fault": "surprising", "token": at, "tokens": RUN, "score": round(float(own[at]), 3)}


def highest_runs(logprobs: NDArray[np.float32]) -> float | None:
    """The highest mean surprisal, in nats, of five tokens in a row of one completion (T,); None below five tokens."""
    if len(logprobs) < RUN:
        return None
    sums = np.concatenate(([0.0], np.cumsum(-logprobs.astype(np.float64))))
    return float(((sums[RUN:] - sums[:-RUN]) / RUN).max())
