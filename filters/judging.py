"""Call a filter and check its answer against the contract: one verdict per sample, in order.

An exception in a filter does not lose a batch. The batch is halved until the sample that fails (in scope prompt: the prompt) is
isolated, and only that becomes undecided. One bad row among n costs about 2 log2(n) further calls.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from filters.base import Filter, FilterError, Role, Scope, verdict_table
from filters.chunks import cuts, row_bytes, take
from filters.reasoning import take_apart
from schemas.sample import Message, Outcome, Sample, Verdict, to_json

REASON = re.compile(r"[a-z][a-z0-9_]*")
ERROR_CHARS = 500
BATCH_BYTES = 64 << 20
"""Most bytes of samples that a filter is shown at a time, unless one sample (in scope prompt: one prompt) has more."""
CUT_WHILE_THINKING = "cut_while_thinking"
"""Reason of a sample that ended inside its reasoning, so that it has no answer."""
COMPARED = (Role.DUPLICATE, Role.NEAR_MISS)
"""Roles of filters that compare answers with each other: they find the tool calls after the answer's text."""
_NAMES = ["outcome", "reason", "score", "detail"]
_OUTCOMES = pa.array([outcome.value for outcome in Outcome])


def judge(filter_: Filter, table: pa.Table) -> pa.Table:
    """Judge a batch. Returns the columns outcome, reason, score, detail, one row per sample in order.

    In scope prompt the table must hold whole prompts, in any order. Raises FilterError if the filter breaks the contract.
    """
    if filter_.scope is Scope.CORPUS:
        raise FilterError(f"{filter_.name}: has scope corpus; judge_corpus asks it")
    if table.num_rows == 0:
        return verdict_table([], [])
    seen = projected(filter_, table)
    shown = pc.is_valid(seen["completion"]) if "completion" in seen.column_names else None
    if shown is None or pc.all(shown).as_py():
        return _ask_in_batches(filter_, seen, _units(filter_, table))
    seen, units = seen.filter(shown), _units(filter_, table)[shown.to_numpy()]
    verdicts = _ask_in_batches(filter_, seen, units) if seen.num_rows else verdict_table([], [])
    return _with_unshown(verdicts, shown)


def _ask_in_batches(filter_: Filter, table: pa.Table, units: np.ndarray[Any, np.dtype[np.int64]]) -> pa.Table:
    """The verdicts on rows (n,), of which the filter is shown at most BATCH_BYTES at a time. Rows of one unit stay together."""
    if table.nbytes <= BATCH_BYTES:
        return _ask(filter_, table, units)
    order = np.argsort(units, kind="stable")
    borders = np.flatnonzero(np.append(np.diff(units[order]) != 0, True)) + 1
    parts, places = [], []
    for start, end in cuts(row_bytes(table)[order], BATCH_BYTES, borders):
        rows = np.sort(order[start:end])
        parts.append(_ask(filter_, take(table, rows), units[rows]))
        places.append(rows)
    return pa.concat_tables(parts).take(pa.array(np.argsort(np.concatenate(places))))


def _with_unshown(verdicts: pa.Table, shown: pa.ChunkedArray) -> pa.Table:
    """The verdicts on all rows: those that were not shown to the filter ended inside their reasoning and are undecided."""
    hidden = pa.table(verdict_table([Outcome.UNDECIDED.value], [CUT_WHILE_THINKING]))
    index = np.cumsum(shown.to_numpy()) - 1
    index[~shown.to_numpy()] = verdicts.num_rows
    return pa.concat_tables([verdicts, hidden]).take(pa.array(index))


def judge_corpus(filter_: Filter, batches: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """Judge all batches with a filter of scope corpus; yields one table per batch. After an exception the rest is undecided.

    An exception raised by `batches` itself is the caller's: it is raised here even if the filter catches it.
    """
    waiting: list[tuple[int, pa.ChunkedArray | None]] = []
    broken: list[Exception] = []

    def batches_seen() -> Iterator[pa.Table]:
        try:
            for batch in batches:
                seen = projected(filter_, batch)
                shown = pc.is_valid(seen["completion"]) if "completion" in seen.column_names else None
                shown = None if shown is None or pc.all(shown, min_count=0).as_py() else shown
                waiting.append((seen.num_rows if shown is None else pc.sum(shown).as_py(), shown))
                yield seen if shown is None else seen.filter(shown)
        except Exception as error:
            broken.append(error)
            raise

    source = batches_seen()
    try:
        for answer in filter_.judge(source):
            if not waiting:
                raise FilterError(f"{filter_.name}: returned more answers than it read batches")
            rows, shown = waiting.pop(0)
            verdicts = _columns(filter_, answer, rows)
            yield verdicts if shown is None else _with_unshown(verdicts, shown)
        failure: Exception = FilterError("ended before it had judged every batch")
    except (FilterError, MemoryError):
        raise
    except Exception as error:  # noqa: BLE001 - an exception in a filter becomes an undecided verdict
        failure = error
    for _ in source:
        pass
    if broken:
        raise broken[0]
    for rows, shown in waiting:
        verdicts = _failed(failure, rows)
        yield verdicts if shown is None else _with_unshown(verdicts, shown)


def one_by_one(function: Callable[[Sample], Verdict], columns: Sequence[str]) -> Callable[[pa.Table], list[Verdict]]:
    """Make a judge from a function of one sample. Fields that are not in `columns` have neutral values."""
    return lambda table: [function(sample) for sample in samples_of(table, columns)]


def per_prompt(
    function: Callable[[Sequence[Sample]], Sequence[Verdict]], columns: Sequence[str]
) -> Callable[[pa.Table], list[Verdict]]:
    """Make a judge from a function of all samples of a prompt. `columns` must include prompt_id. Row order is kept."""

    def judge_prompts(table: pa.Table) -> list[Verdict]:
        groups: dict[str, list[tuple[int, Sample]]] = {}
        for row, sample in enumerate(samples_of(table, columns)):
            groups.setdefault(sample.prompt_id, []).append((row, sample))
        by_row: dict[int, Verdict] = {}
        for group in groups.values():
            verdicts = function([sample for _, sample in group])
            if len(verdicts) != len(group):
                raise FilterError(f"wanted {len(group)} verdicts, one per sample of the prompt, found {len(verdicts)}")
            by_row |= {row: verdict for (row, _), verdict in zip(group, verdicts, strict=True)}
        return [by_row[row] for row in range(table.num_rows)]

    return judge_prompts


def samples_of(table: pa.Table, columns: Sequence[str]) -> Iterator[Sample]:
    """Make Sample objects from pool rows, with the named columns only."""
    neutral: dict[str, Any] = {"sample_id": "", "prompt_id": "", "family": "", "messages": (), "completion": ""}
    known = [name for name in columns if name in Sample.__dataclass_fields__]
    for row in table.select(known).to_pylist():
        if row.get("messages") is not None:
            row["messages"] = tuple(Message(**message) for message in row["messages"])
        for name in ("reference", "metadata", "tool_calls"):
            if row.get(name) is not None:
                row[name] = json.loads(row[name])
        yield Sample(**{**neutral, **row})


def _units(filter_: Filter, table: pa.Table) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Number, per row, the unit that fails together: the sample itself, or its prompt."""
    if filter_.scope is Scope.SAMPLE:
        return np.arange(table.num_rows)
    codes: np.ndarray[Any, np.dtype[np.int64]] = table["prompt_id"].combine_chunks().dictionary_encode().indices.to_numpy()
    return codes


def _ask(filter_: Filter, table: pa.Table, units: np.ndarray[Any, np.dtype[np.int64]]) -> pa.Table:
    try:
        answer = filter_.judge(table)
    except FilterError as error:
        raise FilterError(f"{filter_.name}: {error}") from error
    except MemoryError:
        raise  # a fault of the machine, which halving the batch would hide
    except Exception as error:  # noqa: BLE001 - an exception in a filter becomes an undecided verdict
        distinct = np.unique(units)
        if len(distinct) == 1:
            return _failed(error, table.num_rows)
        low = units < distinct[len(distinct) // 2]
        parts = [_ask(filter_, take(table, np.flatnonzero(half)), units[half]) for half in (low, ~low)]
        back = np.argsort(np.concatenate([np.flatnonzero(low), np.flatnonzero(~low)]))
        return pa.concat_tables(parts).take(pa.array(back))
    return _columns(filter_, answer, table.num_rows)


def projected(filter_: Filter, table: pa.Table) -> pa.Table:
    """Select exactly the columns that the filter asks for; `completion` is what it reads. Completions that were not taken apart
    are taken apart by the usual marks."""
    names = list(filter_.read_columns)
    derived = {"answer", "reasoning"}.intersection(names).difference(table.column_names)
    if derived and "completion" in table.column_names:
        parts = take_apart(table["completion"])
        for name in derived:
            table = table.append_column(name, getattr(parts, name))
    missing = [name for name in names if name not in table.column_names]
    if missing:
        raise FilterError(f"{filter_.name}: wanted the column {missing[0]}, found {', '.join(table.column_names)}")
    seen = table.select(names).rename_columns(list(filter_.columns))
    if "completion" not in filter_.columns or filter_.reads == "completion":
        return seen
    place = filter_.columns.index("completion")
    text = seen.column(place)
    if filter_.reads == "reasoning":  # a filter on reasoning sees that there is none
        text = pc.fill_null(text, "")
    elif filter_.role in COMPARED and "tool_calls" in table.column_names:
        text = compared_text(text, table["tool_calls"])
    return seen.set_column(place, "completion", text)


def compared_text(answers: pa.ChunkedArray, calls: pa.ChunkedArray) -> pa.ChunkedArray:
    """The texts by which answers are compared: with their tool calls, for answers that only call tools have no other text."""
    return pc.if_else(pc.is_valid(calls), pc.binary_join_element_wise(answers, pc.fill_null(calls, ""), "\n"), answers)


def _failed(error: Exception, rows: int) -> pa.Table:
    outcome, reason, _, detail = _row(_failure(error))
    return verdict_table([outcome] * rows, [reason] * rows, detail=[detail] * rows)


def _failure(error: Exception) -> Verdict:
    return Verdict.undecided("filter_error", error=f"{type(error).__name__}: {error}"[:ERROR_CHARS])


def _row(verdict: Verdict) -> tuple[str, str, float | None, str | None]:
    score = None if verdict.score is None else float(verdict.score)
    return verdict.outcome, verdict.reason, score, None if verdict.detail is None else stored_json(verdict.detail)


def stored_json(detail: Mapping[str, Any]) -> str:
    """Return a detail as JSON text that Arrow can store. Lone surrogates, which models do write, are escaped."""
    text = to_json(dict(detail))
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode(errors="backslashreplace").decode()
    return text


def _columns(filter_: Filter, answer: Any, rows: int) -> pa.Table:
    """Convert a filter's answer to columns, and check it."""
    table = answer if isinstance(answer, pa.Table) else _from_verdicts(filter_, answer)
    if set(table.column_names) != set(_NAMES):
        raise FilterError(f"{filter_.name}: a verdict table has the columns {_NAMES}, found {table.column_names}")
    if table.num_rows != rows:
        raise FilterError(f"{filter_.name}: wanted {rows} verdicts, one per sample, found {table.num_rows}")
    if not pc.all(pc.is_in(table["outcome"], _OUTCOMES), min_count=0).as_py():
        raise FilterError(
            f"{filter_.name}: outcomes must be {_OUTCOMES.to_pylist()}, found {pc.unique(table['outcome']).to_pylist()}"
        )
    if table["reason"].null_count:
        raise FilterError(f"{filter_.name}: a reason may be empty but not null")
    kept = pc.equal(table["outcome"], Outcome.KEEP.value)
    for reason in pc.unique(table["reason"].filter(pc.invert(kept))).to_pylist():
        if not reason or not REASON.fullmatch(reason):
            raise FilterError(f"{filter_.name}: a reason must be a snake_case word, found {reason!r}")
    if pc.any(pc.and_(kept, pc.not_equal(table["reason"], "")), min_count=0).as_py():
        raise FilterError(f"{filter_.name}: a kept sample has no reason")
    return table.select(_NAMES)


def _from_verdicts(filter_: Filter, answer: Any) -> pa.Table:
    if not isinstance(answer, Sequence):
        raise FilterError(f"{filter_.name}: judge must return a sequence of Verdict or a table, found {type(answer).__name__}")
    verdicts = list(answer)
    if not all(isinstance(verdict, Verdict) for verdict in verdicts):
        raise FilterError(f"{filter_.name}: judge must return Verdict objects or a table of verdicts")
    rows: list[tuple[str, str, float | None, str | None]] = []
    for verdict in verdicts:
        try:
            rows.append(_row(verdict))
        except (TypeError, ValueError, RecursionError) as error:  # a detail without JSON text, a score that is no number
            rows.append(_row(_failure(error)))
    outcome, reason, score, detail = zip(*rows, strict=True) if rows else ((), (), (), ())
    return verdict_table(outcome, reason, score, detail)
