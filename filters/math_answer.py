"""The final answer equals the reference: read out by one rule, compared by what it is, then by math-verify.

    completion -> candidate (filters.maths.extraction) -> plain text or number (filters.maths.plain, in this process)
      -> in a supervised worker: guard -> typed comparison and evaluation (filters.maths.typed, expressions) -> math-verify

What is not read is `unparsed`, what the guard refuses or nobody can tell is `unverifiable`; neither is wrong. math-verify runs
with its own time-outs off, because it reports them as wrong answers; the worker's deadline takes their place.
"""

import json
from collections.abc import Callable, Sequence
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
from filters.maths.extraction import ANSWER_CHARS, final_answer, hedged
from filters.maths.plain import number_of, same
from filters.supervise import Answer, Pool, verdict_of
from schemas.sample import Outcome, Verdict

KEEP, DROP, UNDECIDED = Outcome.KEEP.value, Outcome.DROP.value, Outcome.UNDECIDED.value
SHOWN_CHARS = 200
_RULE = "1"


class Config(BaseModel):
    """Parameters of `math_answer`."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    after: str = "####"
    """A reference that holds this marker is what stands behind its last occurrence, as in GSM8K's solutions."""
    seconds: float = Field(default=5.0, gt=0, le=300)
    """Wall time for one comparison in a worker; later is undecided as `timeout`."""
    memory_mib: int = Field(default=2048, ge=512)
    """Address space of a worker."""


def build(config: Config) -> Filter:
    """Drop `wrong_answer`; undecided with `unparsed`, `unverifiable`, `timeout`, `crash`, `filter_error`, `no_reference`,
    `bad_reference`."""
    pool = Pool("filters.math_answer:worker", seconds=config.seconds, memory_mib=config.memory_mib)
    unfit: dict[str, str | None] = {}

    @lru_cache(maxsize=65_536)  # the samples of a prompt share their reference
    def golds(reference: str) -> tuple[str, ...] | None:
        return golds_of(json.loads(reference), config.after)

    def judge(table: pa.Table) -> pa.Table:
        completions, references = table["completion"], table["reference"]
        codes = _codes(completions, references)
        _, first = np.unique(codes, return_index=True)
        said = _judged(completions.take(pa.array(first)).to_pylist(), references.take(pa.array(first)).to_pylist())
        return said.take(pa.array(codes))

    def _judged(completions: Sequence[str], references: Sequence[str | None]) -> pa.Table:
        rows: list[Verdict | tuple[str, tuple[str, ...]]] = [_plain(c, r) for c, r in zip(completions, references, strict=True)]
        asked = [(at, row) for at, row in enumerate(rows) if isinstance(row, tuple)]
        if asked:
            _test_golds({gold for _, (_, accepted) in asked for gold in accepted})
            items = list(dict.fromkeys((gold, answer) for _, (answer, accepted) in asked for gold in accepted))
            given = dict(zip(items, pool.map([list(item) for item in items]), strict=True))
            for at, (answer, accepted) in asked:
                rows[at] = _of_golds(answer, accepted, given)
        return _table([row for row in rows if isinstance(row, Verdict)])

    def _plain(completion: str, reference: str | None) -> Verdict | tuple[str, tuple[str, ...]]:
        if reference is None or reference == "null":
            return _NO_REFERENCE
        accepted = golds(reference)
        if accepted is None:
            return _BAD_REFERENCE
        found = final_answer(completion)
        if found.answer is None:
            return Verdict.undecided("unparsed", why=found.why)
        said = [same(gold, found.answer) for gold in accepted]
        if True in said:
            return _KEPT
        if None not in said:
            return Verdict.drop("wrong_answer", found=found.answer[:SHOWN_CHARS])
        if hedged(found.answer) and not any(_several(gold) for gold in accepted):
            return Verdict.undecided("unparsed", why="several answers, or a doubt", found=found.answer[:SHOWN_CHARS])
        return found.answer, accepted

    def _test_golds(every: set[str]) -> None:
        """A reference that no comparison can read, or that is not equal to itself written otherwise, can match nothing."""
        fresh = sorted(gold for gold in every if gold not in unfit)
        for gold, answer in zip(fresh, pool.map([[gold] for gold in fresh]), strict=True):
            unfit[gold] = None if answer.kind == "done" and answer.value is None else str(answer.value or answer.message)

    def _of_golds(answer: str, accepted: Sequence[str], given: dict[tuple[str, str], Answer]) -> Verdict:
        bad = [gold for gold in accepted if unfit[gold] is not None]
        if bad:
            return Verdict.undecided("bad_reference", reference=bad[0][:SHOWN_CHARS], why=unfit[bad[0]])
        every = [given[gold, answer] for gold in accepted]
        if any(one.kind == "done" and one.value == "equal" for one in every):
            return _KEPT
        for one in every:
            if one.kind != "done":
                return verdict_of(one)
        why = next((one.value for one in every if one.value != "different"), None)
        if why is not None:
            return Verdict.undecided("unverifiable", why=why, found=answer[:SHOWN_CHARS])
        return Verdict.drop("wrong_answer", found=answer[:SHOWN_CHARS])

    def gold(reference: Any) -> str | None:
        accepted = golds_of(reference, config.after)
        if accepted is None:
            return None if reference is None else "\\boxed{?}"
        return f"\\boxed{{{accepted[0]}}}"

    def wrong(reference: Any) -> str | None:
        accepted = golds_of(reference, config.after)
        return None if accepted is None else "\\boxed{-987654321987}"

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
    """The acceptable answers of a reference: a number, a text, a solution that ends with `#### 42`, or a list of these. None
    where there is none, or it is of another kind or longer than 1,000 characters."""
    texts = []
    for one in reference if isinstance(reference, list) else [reference]:
        if isinstance(one, bool) or not isinstance(one, str | int | float):
            return None
        text = one if isinstance(one, str) else json.dumps(one)
        text = text.rpartition(after)[2] if after else text
        if "\\boxed" in text:
            found = final_answer(text).answer
            if found is None:
                return None
            text = found
        text = text.strip()
        if not text or len(text) > ANSWER_CHARS:
            return None
        texts.append(text)
    return tuple(texts) or None


def worker(_setup: Any) -> Callable[[list[str]], str | None]:
    """Compares `[gold, answer]` in a supervised worker: `equal`, `different`, or why nobody can tell. `[gold]` alone is tried on
    itself: None, or why it cannot be a reference."""
    from filters.maths.verify import verified, why_unfit

    return lambda item: why_unfit(item[0]) if len(item) == 1 else verified(item[0], item[1])


# -- inside ------------------------------------------------------------------------------------------------------------------

_KEPT, _NO_REFERENCE, _BAD_REFERENCE = Verdict.keep(), Verdict.undecided("no_reference"), Verdict.undecided("bad_reference")


def _several(gold: str) -> bool:
    """Whether a reference names several answers, so that an answer may too."""
    return hedged(gold) or ("," in gold and number_of(gold) is None) or "\\pm" in gold


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "none"


def _codes(completions: pa.ChunkedArray, references: pa.ChunkedArray) -> NDArray[np.int64]:
    """A number per row, the same for the same pair, counting from 0 in the order of first occurrence."""
    first, second = (
        pc.fill_null(column.combine_chunks().dictionary_encode().indices, -1).to_numpy(zero_copy_only=False).astype(np.int64)
        for column in (completions, references)
    )
    joined = first * (second.max(initial=0) + 2) + second + 1
    codes: NDArray[np.int64] = pa.array(joined).dictionary_encode().indices.to_numpy().astype(np.int64)
    return codes


def _table(verdicts: Sequence[Verdict]) -> pa.Table:
    details = {id(one): None if one.detail is None else stored_json(one.detail) for one in verdicts}
    return verdict_table(
        [one.outcome.value for one in verdicts], [one.reason for one in verdicts], detail=[details[id(one)] for one in verdicts]
    )
