"""`coherence` with a language model beside it: what its rules find has to surprise the model too, and words that were cut in the
middle of a text are found.

The model reads each text from its first token, and costs what a prompt of that length costs. The rules' scores may then be lower
and their false alarms fewer: an unusual name is odd by its letters, but follows from its sentence. Its bounds are those of the
embedded SmolLM2-135M; another model needs its own. docs/filters.md has the figures, benchmarks/coherence.py measures them.

A passage of sound words in the wrong place is not found: its first words surprise the model no more than a change of subject.
"""

from typing import Any

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field

from filters.base import Filter, Role, Scope
from filters.coherence.coherence import Detail, Fault, Rule, batches, rules_of, verdicts_of, worst_faults
from filters.coherence.model import english
from filters.coherence.page import lay_out
from filters.coherence.surprise import Tokens, confirmed, cut_inside, tokens_of
from filters.coherence.words import words_of
from filters.judging import stored_json
from filters.models.paths import LocalModel
from filters.tools import Reading, Tools
from schemas.engines import ModelSpec, VllmEngine
from schemas.sample import Outcome

CONFIRMED: dict[str, tuple[float, dict[str, float]]] = {
    "noise": (55.0, {"mean": 5.0}),
    "signs": (3.0, {"mean": 5.0}),
    "letters": (8.3, {"mean": 5.0}),
    "glued": (2.5, {"gap": 8.0}),
    "camel": (4.5, {"gap": 12.5}),
    "stops": (2.0, {"gap": 12.0}),
    "flips": (2.0, {"gap": 6.0}),
}
"""Least score of a rule's finding, and least mean surprisal or gap of its tokens, in nats."""


class Config(BaseModel):
    """Parameters of `coherence_model`."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    model: LocalModel = ModelSpec()
    """The language model that reads: the embedded one, a folder (relative to the recipe) or a Hub id. The bounds are those of the
    embedded one."""
    engine: VllmEngine = VllmEngine(max_model_len=4096)
    """Settings of vLLM. It takes its share of the GPU in addition to the sampler's, once per filter process: set
    gpu_memory_utilization on both. On a CPU a text has the same surprisal alone and among others; on a GPU, where that was not
    measured, dtype float32 keeps what differs small."""
    ignore: tuple[Fault, ...] = ()
    """Faults that are not searched for."""
    windows: int = Field(default=1, ge=1)
    """Number of windows with a fault from which a sample is dropped."""
    max_chars: int = Field(default=100_000, ge=100)
    """Longer completions are undecided as `unverifiable`."""


def build(config: Config, tools: Tools) -> Filter:
    """Drop what `coherence` drops, if the model is surprised by it, and `cut_word` anywhere in a text; undecided with
    `unverifiable` (too long for the model). The score is the share of windows without a fault, 1 for a text without words."""

    def judge(table: pa.Table) -> pa.Table:
        texts = table["completion"].to_pylist()
        short = [row for row, text in enumerate(texts) if len(text) <= config.max_chars]
        readings: list[Reading | str] = [f"longer than {config.max_chars} characters"] * len(texts)
        opened = tools.opened_models().reader(config.engine, config.model)
        for row, reading in zip(short, opened.readings([texts[row] for row in short]), strict=True):
            readings[row] = reading
        details: list[Detail | None] = []
        scores: list[float] = []
        known = [reading if isinstance(reading, Reading) else Reading.empty() for reading in readings]
        judged = ["" if isinstance(reading, str) else text for text, reading in zip(texts, readings, strict=True)]
        for first, last in batches([len(text) for text in judged]):
            worst, clean = _faults(judged[first:last], known[first:last], config)
            details += worst
            scores += clean
        return _with_unread(verdicts_of(details, scores), readings)

    parameters = config.model_dump(mode="json")
    return Filter(
        "coherence_model", "1", Scope.SAMPLE, Role.QUALITY, judge, ("completion",), parameters, certain=False, cost_us=50_000.0
    )


def _faults(texts: list[str], readings: list[Reading], config: Config) -> tuple[list[Detail | None], list[float]]:
    page, known = lay_out(texts), english()
    words, prose = words_of(page, known)
    tokens = tokens_of(page, readings)
    found = [_confirmed(rule, tokens) for rule in rules_of(page, known, words, prose)]
    found.append(Rule("inside", "cut_word", cut_inside(page, known, words, tokens), (1.0, 1.0)))
    return worst_faults(page, found, config.ignore, config.windows)


def _confirmed(rule: Rule, tokens: Tokens) -> Rule:
    if rule.name not in CONFIRMED:
        return rule
    least, bounds = CONFIRMED[rule.name]
    return Rule(rule.name, rule.fault, confirmed(rule.findings, tokens, **bounds), (least, least))


def _with_unread(verdicts: pa.Table, readings: list[Reading | str]) -> pa.Table:
    """Verdicts in which texts that the model could not read are undecided."""
    unread = {row: why for row, why in enumerate(readings) if isinstance(why, str)}
    if not unread:
        return verdicts
    rows: list[dict[str, Any]] = verdicts.to_pylist()
    for row, why in unread.items():
        rows[row] = {
            "outcome": Outcome.UNDECIDED.value,
            "reason": "unverifiable",
            "score": None,
            "detail": stored_json({"why": why}),
        }
    return pa.Table.from_pylist(rows, schema=verdicts.schema)
