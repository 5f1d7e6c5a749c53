"""Drop prose that broke while it was sampled: noise, invented and glued words, flipped case, foreign script, mojibake, loops,
and texts that stop in the middle of a word.

At temperature 1 a model sometimes draws a token from the far tail and continues from there. Some rules that find the result know
English (filters.coherence.rules and words: the surprisal of letters, word lists, places of capitals), others know no language
(filters.coherence.language_free). Code, formulas, markup, tables and addresses are left alone. Text that is not English prose is
searched for loops, mojibake and foreign script only. A text is read in windows of at most 250 characters; the worst finding
decides.

The thresholds flag 0.7 to 0.9 % of clean sentences (from technical documents, which are harder than stories).
benchmarks/verify_text.py measures that, and the share found of each kind of splice. What the filter cannot see: two glued words
whose sum looks like a word, a cut between or within words whose halves make a likely word, salads of real words. Some of the cuts
are found by filters.coherence.coherence_model, which has a language model read along.

Per-token surprisal (`surprisal`, off by default) is the highest mean of five tokens in a row, where the pool has
log-probabilities. With SmolLM2-135M and a threshold of 11.5 nats, which flags 1 % more of the clean sentences, it raises the
share found (100 to 200 splices of each kind): salads of words 3 -> 41 %, words cut and glued to the next 3 -> 34 %, words cut
short 1 -> 20 %, two glued words 12 -> 18 %, other kinds 1 to 3 % more. The threshold depends on the model and the text, so there
is no default: read the `score` of a first run.
"""

from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from filters.base import Filter, Role, Scope, verdict_table
from filters.coherence.language_free import cut_words, foreign_script, loops, mojibake
from filters.coherence.masks import Bits
from filters.coherence.model import English, english
from filters.coherence.page import Findings, Page, lay_out
from filters.coherence.rules import case, full_stops, noise, signs
from filters.coherence.words import Words, unknown_words, words_of
from filters.judging import stored_json
from schemas.sample import Outcome

Fault = Literal[
    "noise", "strange_word", "glued_words", "case_flip", "foreign_script", "mojibake", "loop", "cut_word", "surprising"
]
Least = tuple[float, float]
"""Scores from which a finding is a fault: in plain prose, and in a text with code, formulas or links in several places, which is
full of names."""
SURE = (0.001, 0.001)
"""Of the rules that report no doubtful cases. Their findings score 1, so they outweigh all others."""
NOISE, SIGNS, LETTERS = (58.0, 75.0), (4.5, 6.0), (8.3, 11.0)
GLUED, CAMEL, STOPS, FLIPS = (2.5, 2.5), (4.5, 4.5), (2.0, 2.0), (2.0, 2.5)
"""Each flags 0.1 to 0.4 % of clean sentences."""
SPAN_CHARS = 200
BATCH_CHARS = 2_000_000
"""Characters laid out together, each of which takes about 100 bytes in arrays; of a longer text only these are read."""
RUN_TOKENS = 5
"""Tokens in a row over which surprisal is averaged."""

Detail = dict[str, Any]


class Rule(NamedTuple):
    """What a rule found, the fault that it reports, and the scores from which it does."""

    name: str
    fault: str
    findings: Findings
    least: Least


class Config(BaseModel):
    """Parameters of `coherence`."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    ignore: tuple[Fault, ...] = ()
    """Faults that are not searched for."""
    windows: int = Field(default=1, ge=1)
    """Number of windows with a fault from which a sample is dropped. Raise it for long texts, which have more chances of a false
    alarm."""
    surprisal: Annotated[float, Field(gt=0)] | None = None
    """Nats: drop a sample in which five tokens in a row have a higher mean surprisal (minus log-probability); null is off."""


def build(config: Config) -> Filter:
    """Drop `noise`, `strange_word`, `glued_words`, `case_flip`, `foreign_script`, `mojibake`, `loop`, `cut_word`, `surprising`.

    The score is the share of windows without a fault, 1 for a text without words.
    """

    def judge(table: pa.Table) -> pa.Table:
        texts = [read_part(text) for text in table["completion"].to_pylist()]
        details: list[Detail | None] = []
        scores: list[float] = []
        for first, last in batches([len(text) for text in texts]):
            page, known = lay_out(texts[first:last]), english()
            found = rules_of(page, known, *words_of(page, known))
            worst, clean = worst_faults(page, found, config.ignore, config.windows)
            details += worst
            scores += clean
        if config.surprisal is not None:
            _add_surprising(table["logprobs"], config.surprisal, details)
        return verdicts_of(details, scores)

    columns = ("completion",) if config.surprisal is None else ("completion", "logprobs")
    parameters = config.model_dump(mode="json")
    return Filter("coherence", "3", Scope.SAMPLE, Role.QUALITY, judge, columns, parameters, cost_us=60.0)


def verdicts_of(details: list[Detail | None], scores: list[float]) -> pa.Table:
    """Verdicts as columns: texts with a fault are dropped."""
    return verdict_table(
        [(Outcome.KEEP if detail is None else Outcome.DROP).value for detail in details],
        ["" if detail is None else detail["fault"] for detail in details],
        scores,
        [None if detail is None else stored_json(detail) for detail in details],
    )


def read_part(text: str) -> str:
    """What is read of a text: of more than BATCH_CHARS characters the first, up to the end of a word."""
    if len(text) <= BATCH_CHARS:
        return text
    return text[: max(text.rfind(mark, 0, BATCH_CHARS) for mark in (" ", "\n")) + 1] or text[:BATCH_CHARS]


def batches(lengths: list[int]) -> list[tuple[int, int]]:
    """Ranges of texts that are laid out together."""
    batches, first, size = [], 0, 0
    for row, length in enumerate(lengths):
        if size and size + length > BATCH_CHARS:
            batches.append((first, row))
            first, size = row, 0
        size += length
    return [*batches, (first, len(lengths))] if lengths else []


def worst_faults(page: Page, found: list[Rule], ignore: tuple[str, ...], windows: int) -> tuple[list[Detail | None], list[float]]:
    """The worst fault of each of D texts with faults in at least so many windows, and the share of windows without one (D)."""
    texts = len(page.starts)
    worst: list[Detail | None] = [None] * texts
    badness = np.zeros(texts)
    flagged, owners = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for _, fault, findings, least in found:
        if fault in ignore:
            continue
        bounds = np.where(page.technical, least[1], least[0])[page.document[findings.starts]]
        over = findings.scores >= bounds
        starts, ends, values = findings.starts[over], findings.ends[over], findings.scores[over]
        flagged.append(page.window[starts].astype(np.int64))
        owners.append(page.document[starts].astype(np.int64))
        for start, end, value, bound in zip(*(array.tolist() for array in (starts, ends, values, bounds[over])), strict=True):
            document, ratio = int(page.document[start]), value / bound
            if ratio > badness[document]:
                badness[document] = ratio
                offset = start - int(page.starts[document])
                span = page.text[start : min(end, start + SPAN_CHARS)]
                place = {"start": offset, "end": offset + end - start, "span": span}
                worst[document] = {"fault": fault, **place, "score": round(value, 3)}
    _, first = np.unique(np.concatenate(flagged), return_index=True)  # a window counts once
    per_text = np.bincount(np.concatenate(owners)[first], minlength=texts)
    for row in np.flatnonzero(per_text):
        if per_text[row] < windows:
            worst[row] = None
    for row, detail in enumerate(worst):
        if detail is not None:
            detail |= {"windows": int(page.windows[row]), "flagged": int(per_text[row])}
    return worst, np.clip(1 - per_text / np.maximum(page.windows, 1), 0, 1).tolist()


def rules_of(page: Page, known: English, words: Words, prose: Bits) -> list[Rule]:
    """What every rule found, those without a threshold first."""
    unknown, capitals = unknown_words(page, known, words), case(page, known, words)
    return [
        Rule("mojibake", "mojibake", mojibake(page), SURE),
        Rule("loop", "loop", loops(page), SURE),
        Rule("foreign_script", "foreign_script", foreign_script(page), SURE),
        Rule("noise", "noise", _whole_tokens(page, noise(page, known, prose)), NOISE),
        Rule("signs", "noise", signs(page, prose), SIGNS),
        Rule("letters", "strange_word", unknown["letters"], LETTERS),
        Rule("glued", "glued_words", unknown["glued"], GLUED),
        Rule("camel", "glued_words", capitals["camel"], CAMEL),
        Rule("stops", "glued_words", full_stops(page, known, words), STOPS),
        Rule("flips", "case_flip", capitals["flips"], FLIPS),
        Rule("cut", "cut_word", cut_words(page, known, words), (1.0, 1.0)),
    ]


def _whole_tokens(page: Page, findings: Findings) -> Findings:
    """Extend spans to the borders of their tokens."""
    if not len(page.token_starts):
        return findings
    first = np.maximum(np.searchsorted(page.token_starts, findings.starts, side="right") - 1, 0)
    last = np.minimum(np.searchsorted(page.token_ends, findings.ends), len(page.token_ends) - 1)
    starts = np.where(page.token_ends[first] > findings.starts, page.token_starts[first], findings.starts)
    ends = np.where(page.token_starts[last] < findings.ends, page.token_ends[last], findings.ends)
    return Findings.of(starts, ends, findings.scores)


def _add_surprising(column: pa.ChunkedArray, most: float, details: list[Detail | None]) -> None:
    """Note runs of tokens above the bound in samples without another fault. Token numbers count from 0."""
    lists = column.combine_chunks()
    values = np.concatenate(([0.0], np.cumsum(-lists.values.to_numpy(zero_copy_only=False).astype(np.float64))))
    offsets, present = lists.offsets.to_numpy(), lists.is_valid().to_numpy(zero_copy_only=False)
    if len(values) <= RUN_TOKENS:
        return
    means = (values[RUN_TOKENS:] - values[:-RUN_TOKENS]) / RUN_TOKENS
    for row, (start, end) in enumerate(zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True)):
        if not present[row] or end - start < RUN_TOKENS or details[row] is not None:
            continue
        runs = means[start : end - RUN_TOKENS + 1]
        token = int(runs.argmax())
        if runs[token] > most:
            details[row] = {
                "fault": "surprising", "token": token, "tokens": RUN_TOKENS, "score": round(float(runs[token]), 3),
            }  # fmt: skip


def highest_runs(logprobs: NDArray[np.float32]) -> float | None:
    """The highest mean surprisal, in nats, of five tokens in a row of one completion (T,); None below five tokens."""
    if len(logprobs) < RUN_TOKENS:
        return None
    sums = np.concatenate(([0.0], np.cumsum(-logprobs.astype(np.float64))))
    return float(((sums[RUN_TOKENS:] - sums[:-RUN_TOKENS]) / RUN_TOKENS).max())
