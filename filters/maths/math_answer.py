"""The final answer equals the reference: extracted by one rule, compared by type, then by math-verify.

    completion -> candidate (filters.maths.extraction) -> plain text or number (filters.maths.cleaning, in this process)
      -> in a supervised worker: guard -> typed comparison and evaluation (filters.maths.typed, expressions) -> math-verify

An answer that cannot be extracted is `unparsed`, and so is one that would be wrong where math-verify's own extraction finds
another one in the completion. One that the guard refuses, or that no comparison decides, is `unverifiable`. None of these
counts as wrong. math-verify runs without its own time-outs, because it reports them as wrong answers; the deadline of the worker
replaces them.
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from filters.base import Filter, Role, Scope, verdict_table
from filters.judging import stored_json
from filters.maths.cleaning import number_of, same
from filters.maths.extraction import ANSWER_CHARS, final_answer, hedged
from filters.maths.verify import read_otherwise, verified, why_unfit
from filters.supervise import Answer, Pool, verdict_of
from filters.tools import Tools
from schemas.sample import Outcome, Verdict

KEEP, DROP, UNDECIDED = Outcome.KEEP.value, Outcome.DROP.value, Outcome.UNDECIDED.value
SHOWN_CHARS = 200
SECOND_CHARS = 4_000
"""Characters at the end of a completion in which math-verify looks for another answer."""
_LETTER = re.compile(r"\(?[A-Y]\)?")
_RULE = "5"
_KEPT, _NO_REFERENCE, _BAD_REFERENCE = Verdict.keep(), Verdict.undecided("no_reference"), Verdict.undecided("bad_reference")


class Config(BaseModel):
    """Parameters of `math_answer`."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    after: str = "####"
    """If a reference contains this marker, the answer is the text after its last occurrence, as in GSM8K's solutions."""
    seconds: float = Field(default=5.0, gt=0, le=300)
    """Wall time of one comparison in a worker; a slower one is undecided as `timeout`."""
    memory_mib: int = Field(default=2048, ge=512)
    """Address space of a worker."""


def build(config: Config, tools: Tools) -> Filter:
    """Drop `wrong_answer`; undecided with `unparsed`, `unverifiable`, `timeout`, `crash`, `filter_error`, `no_reference`,
    `bad_reference`."""
    pool = tools.workers.pool("filters.maths.math_answer:worker", seconds=config.seconds, memory_mib=config.memory_mib)

    def judge(table: pa.Table) -> pa.Table:
        completions, references = table["completion"], table["reference"]
        codes = _codes(completions, references)
        _, first = np.unique(codes, return_index=True)
        rows = pa.array(first)
        verdicts = _judged(pool, config.after, completions.take(rows).to_pylist(), references.take(rows).to_pylist())
        return _table(verdicts).take(pa.array(codes))

    def gold(reference: Any) -> str | None:
        accepted = golds_of(reference, config.after)
        if accepted is None:
            return None if reference is None else "\\boxed{?}"
        return f"\\boxed{{{accepted[0]}}}"

    def wrong(reference: Any) -> str | None:
        accepted = golds_of(reference, config.after)
        return None if accepted is None else f"\\boxed{{{_other_than(accepted[0])}}}"

    return Filter(
        "math_answer",
        f"{_RULE}+math-verify-{_version('math-verify')}+antlr-{_version('antlr4-python3-runtime')}",
        Scope.SAMPLE,
        Role.VERIFIER,
        judge,
        ("completion", "reference"),
        config.model_dump(mode="json"),
        gold,
        wrong,
        cost_us=150.0,
    )


def golds_of(reference: Any, after: str = "####") -> tuple[str, ...] | None:
    """Return the acceptable answers of a reference: a number, a text, a solution that ends with `#### 42`, or a list of these.

    None if there is none, if it is of another type, or if one is longer than 1,000 characters.
    """
    texts = []
    for value in reference if isinstance(reference, list) else [reference]:
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            return None
        text = value if isinstance(value, str) else json.dumps(value)
        text = text.rpartition(after)[2] if after else text
        if "\\boxed" in text:
            boxed = final_answer(text).answer
            if boxed is None:
                return None
            text = boxed
        text = text.strip()
        if not text or len(text) > ANSWER_CHARS:
            return None
        texts.append(text)
    return tuple(texts) or None


def worker(_setup: Any) -> Callable[[list[str]], str | None]:
    """Compare `[gold, answer]` in a supervised worker: `equal`, `different`, or why it cannot be decided.

    `[gold]` checks a reference: None, or why it cannot be one. `[answer, completion, ""]` asks for another answer that
    math-verify reads in a completion: None, or its text.
    """
    unfit = lru_cache(maxsize=65_536)(why_unfit)  # the samples of a prompt share their reference
    return lambda item: unfit(item[0]) if len(item) == 1 else verified(*item) if len(item) == 2 else read_otherwise(*item[:2])


# -- inside ------------------------------------------------------------------------------------------------------------------


def _judged(pool: Pool, after: str, completions: Sequence[str], references: Sequence[str | None]) -> list[Verdict]:
    """Judge distinct pairs of completion and reference: in this process where that decides, otherwise in the workers."""
    golds = {text: None if text is None else golds_of(json.loads(text), after) for text in set(references)}
    rows = [_plain(text, reference, golds[reference]) for text, reference in zip(completions, references, strict=True)]
    candidates = [row for row in rows if not isinstance(row, Verdict)]
    answers = _compared(pool, {(gold, answer) for answer, accepted in candidates for gold in accepted})
    verdicts = [row if isinstance(row, Verdict) else _of_golds(*row, answers) for row in rows]
    return _confirmed(pool, completions, verdicts)


def _plain(completion: str, reference: str | None, accepted: tuple[str, ...] | None) -> Verdict | tuple[str, tuple[str, ...]]:
    """A verdict if plain comparison decides; otherwise the candidate and the acceptable answers."""
    if reference is None or reference == "null":
        return _NO_REFERENCE
    if accepted is None:
        return _BAD_REFERENCE
    extracted = final_answer(completion)
    if extracted.answer is None:
        return Verdict.undecided("unparsed", why=extracted.why)
    equal = [same(gold, extracted.answer) for gold in accepted]
    if True in equal:
        return _KEPT
    if None not in equal:
        return Verdict.drop("wrong_answer", found=extracted.answer[:SHOWN_CHARS])
    if hedged(extracted.answer) and not any(_several(gold) for gold in accepted):
        return Verdict.undecided("unparsed", why="several answers, or a doubt", found=extracted.answer[:SHOWN_CHARS])
    return extracted.answer, accepted


def _confirmed(pool: Pool, completions: Sequence[str], verdicts: list[Verdict]) -> list[Verdict]:
    """The verdicts, but no answer is wrong where math-verify reads another one in the completion. It is asked only where it may:
    not of a box or a number after which no digit follows."""
    doubtful = []
    for row, verdict in enumerate(verdicts):
        if verdict.outcome == Outcome.DROP and not (found := final_answer(completions[row])).certain:
            doubtful.append((row, str(found.answer)))
    texts = [[answer, completions[row][-SECOND_CHARS:], ""] for row, answer in doubtful]
    for (row, answer), other in zip(doubtful, pool.map(texts), strict=True):
        if other.kind != "done":
            verdicts[row] = verdict_of(other)
        elif other.value is not None:
            verdicts[row] = Verdict.undecided(
                "unparsed", why="math-verify reads another answer", found=answer[:SHOWN_CHARS], other=other.value[:SHOWN_CHARS]
            )
    return verdicts


def _compared(pool: Pool, pairs: Iterable[tuple[str, str]]) -> dict[tuple[str, ...], Answer]:
    """The workers' answers by item: a check of every reference, and a comparison of every (gold, answer)."""
    ordered = sorted(pairs)
    items: list[tuple[str, ...]] = [*((gold,) for gold in dict.fromkeys(gold for gold, _ in ordered)), *ordered]
    return dict(zip(items, pool.map([list(item) for item in items]), strict=True))


def _of_golds(answer: str, accepted: Sequence[str], answers: Mapping[tuple[str, ...], Answer]) -> Verdict:
    """The verdict on a candidate. A reference that nothing can read, or that does not equal itself, matches nothing."""
    for gold in accepted:
        if (why := _why_unfit(answers[(gold,)])) is not None:
            return Verdict.undecided("bad_reference", reference=gold[:SHOWN_CHARS], why=why)
    comparisons = [answers[gold, answer] for gold in accepted]
    if any(comparison.kind == "done" and comparison.value == "equal" for comparison in comparisons):
        return _KEPT
    for comparison in comparisons:
        if comparison.kind != "done":
            return verdict_of(comparison)
    why = next((comparison.value for comparison in comparisons if comparison.value != "different"), None)
    if why is not None:
        return Verdict.undecided("unverifiable", why=why, found=answer[:SHOWN_CHARS])
    return Verdict.drop("wrong_answer", found=answer[:SHOWN_CHARS])


def _other_than(gold: str) -> str:
    """An answer of the same kind as a reference that differs from it."""
    if _LETTER.fullmatch(gold):
        return "Z"
    if re.fullmatch(r"\d+:\d\d", gold):
        return "7:07" if gold != "7:07" else "8:08"
    if re.fullmatch(r"\d+\s*:\s*\d+", gold):
        return "987654321:1"
    left, sign, _ = gold.partition("=")
    return f"{left}=-987654321987" if sign and gold.count("=") == 1 else "-987654321987"


def _why_unfit(answer: Answer) -> str | None:
    return None if answer.kind == "done" and answer.value is None else str(answer.value or answer.message)


def _several(gold: str) -> bool:
    """Whether a reference names several answers, so that an answer may do so too."""
    return hedged(gold) or ("," in gold and number_of(gold) is None) or "\\pm" in gold


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "none"


def _codes(completions: pa.ChunkedArray, references: pa.ChunkedArray) -> NDArray[np.int64]:
    """Number the distinct pairs from 0, in the order of first occurrence. Returns one number per row."""
    first, second = (
        pc.fill_null(column.combine_chunks().dictionary_encode().indices, -1).to_numpy(zero_copy_only=False).astype(np.int64)
        for column in (completions, references)
    )
    joined = first * (second.max(initial=0) + 2) + second + 1
    codes: NDArray[np.int64] = pa.array(joined).dictionary_encode().indices.to_numpy().astype(np.int64)
    return codes


def _table(verdicts: Sequence[Verdict]) -> pa.Table:
    details = {id(verdict): None if verdict.detail is None else stored_json(verdict.detail) for verdict in verdicts}
    return verdict_table(
        [verdict.outcome.value for verdict in verdicts],
        [verdict.reason for verdict in verdicts],
        detail=[details[id(verdict)] for verdict in verdicts],
    )
