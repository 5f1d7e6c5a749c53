"""Builds the Arrow tables of a shard: completions become journal rows, journal rows pool rows, and verdicts verdict rows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from filters.base import Filter
from filters.chunks import CHUNK_BYTES, take
from filters.reasoning import USUAL, Marking, take_apart
from schemas.recipe import FilterSpec
from schemas.sample import JOURNAL, LOGPROBS, MESSAGE_PARTS, REPEATED, SAMPLES, TOKENS, VERDICTS, to_json
from schemas.sampling import Sampling
from thresher import ids
from thresher.inputs.models import Model
from thresher.samplers.declared import declared_words, logprobs_kind
from thresher.samplers.sampler import NEUTRAL, Completion, Drawn, EngineFacts, anchor_parameters, draw_parameters

ANCHOR_INDEX = -1
COMPLETION_PARTS = {"reasoning": "reasoning_content", "tool_calls": "tool_calls"}
"""Columns of the pool that become further parts of the assistant's message, and the names of those parts."""


@dataclass(frozen=True)
class Series:
    """One way in which the prompts of a run are sampled: its parameters, the engine's settings that can change the distribution,
    and the hash of everything that its samples' ids depend on besides prompt and index."""

    anchor: bool
    parameters: dict[str, Any]
    key: str
    settings: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def text(self) -> str:
        """The parameters, and the engine's settings as `engine`, as JSON text: as the pool stores them."""
        return to_json(_recorded(self.parameters, self.settings))


@dataclass(frozen=True, slots=True)
class Request:
    """Samples of one prompt that are requested together: the prompt's row in its shard, and the samples by index and id."""

    row: int
    series: Series
    indices: tuple[int, ...]
    sample_ids: tuple[str, ...]


def series_of(
    sampling: Sampling, model: Model, salt: str, *, settings: Mapping[str, Any] | None = None, template: str | None = None
) -> list[Series]:
    """The series of a run: one per temperature, and the anchors' last. `settings` are those of its engine that can change the
    distribution, `template` is the hash of the chat template where it is rendered here."""
    engine, adapter = dict(settings or {}), None if model.adapter is None else model.adapter.label
    ways = [(False, draw_parameters(sampling, temperature)) for temperature in sampling.temperatures]
    if sampling.anchor:
        ways.append((True, anchor_parameters(sampling)))
    series = []
    for anchor, parameters in ways:
        recorded = _recorded(parameters, engine)
        key = ids.source_key(model.name, model.revision, recorded, salt, adapter=adapter, template=template)
        series.append(Series(anchor, parameters, key, engine))
    return series


def declared(parameters: Mapping[str, Any]) -> str:
    """The parameters that change the model's own distribution, in words; empty for ancestral sampling."""
    changed = [f"{name} {parameters[name]:g}" for name in NEUTRAL if parameters[name] != NEUTRAL[name]]
    return ", ".join(changed + declared_words(parameters))


def journal_rows(
    answers: Sequence[tuple[Request, Drawn]],
    prompt_ids: Sequence[str],
    *,
    model: Model,
    facts: EngineFacts,
    marking: Marking | None = USUAL,
    token_bytes: NDArray[np.int32] | None = None,
) -> pa.Table:
    """Rows of schema JOURNAL from finished groups. `prompt_ids` are those of the shard. A group with an error becomes rows
    without a completion. Completions are taken apart by `marking`; `token_bytes` has the bytes of each token's text (V,)."""
    texts = sum(len(completion.text) for _, drawn in answers for completion in drawn.completions or ())
    if len(answers) > 1 and texts > CHUNK_BYTES:  # more than one array may hold
        halves = (answers[: len(answers) // 2], answers[len(answers) // 2 :])
        tables = (
            journal_rows(half, prompt_ids, model=model, facts=facts, marking=marking, token_bytes=token_bytes) for half in halves
        )
        return pa.concat_tables(tables)
    sizes = np.array([len(request.indices) for request, _ in answers], np.int64)
    rows = int(sizes.sum())
    group = np.repeat(np.arange(len(answers)), sizes)
    series = [request.series for request, _ in answers]
    empty = Completion("", None)
    completions = [c for request, drawn in answers for c in drawn.completions or [empty] * len(request.indices)]
    opened = [drawn.opened for request, drawn in answers for _ in request.indices]

    def per_row(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
        return pa.array(values, kind).take(pa.array(group))

    columns: dict[str, Any] = {
        "sample_id": [sample_id for request, _ in answers for sample_id in request.sample_ids],
        "prompt_id": per_row([prompt_ids[request.row] for request, _ in answers], pa.string()),
        "index": np.fromiter((index for request, _ in answers for index in request.indices), np.int32, rows),
        "anchor": per_row([way.anchor for way in series], pa.bool_()),
        "sampling": per_row([way.text for way in series], pa.string()),
        "temperature": per_row([way.parameters["temperature"] for way in series], pa.float64()),
        "prompt_ids": _lists([drawn.prompt_ids for _, drawn in answers], TOKENS).take(pa.array(group)),
        "engine_seed": per_row([drawn.engine_seed for _, drawn in answers], pa.int64()),
        "source": per_row([drawn.source or None for _, drawn in answers], pa.string()),
        "error": per_row([drawn.error for _, drawn in answers], pa.string()),
        **_completion_columns(completions),
        **_parts_columns(completions, opened, marking, token_bytes),
        **_first_rows(answers, sizes, rows),
        "logprobs_kind": per_row([logprobs_kind(facts.logprobs_kind, way.parameters) for way in series], pa.string()),
    }
    constant = {
        "engine": facts.engine,
        "engine_version": facts.version,
        "model": model.name,
        "model_revision": model.revision,
        "adapter": None if model.adapter is None else model.adapter.label,
        "chat_template_sha256": model.chat_template_sha256,
        "source_row": None,
        "unreadable": None,
    }
    columns |= {name: pa.repeat(pa.scalar(value, JOURNAL.field(name).type), rows) for name, value in constant.items()}
    return pa.table({name: columns[name] for name in JOURNAL.names}).cast(JOURNAL)


def _first_rows(answers: Sequence[tuple[Request, Drawn]], sizes: NDArray[np.int64], rows: int) -> dict[str, pa.Array]:
    """The columns that are set only in the first row of a calibrated group."""
    tokens: list[int | None] = [None] * rows
    sums: list[Any] = [None] * rows
    masked: list[int | None] = [None] * rows
    for first, (_, drawn) in zip((np.cumsum(sizes) - sizes).tolist(), answers, strict=True):
        if drawn.calibration is not None:
            tokens[first], sums[first] = drawn.tokens - drawn.masked, drawn.calibration.ravel()
            masked[first] = drawn.masked
    return {
        "calibrated_tokens": pa.array(tokens, pa.int64()),
        "calibration": pa.array(sums, JOURNAL.field("calibration").type),
        "masked_tokens": pa.array(masked, pa.int64()),
    }


def pool_rows(prompts: pa.Table, rows: pa.Table) -> pa.Table:
    """Rows of a journal (or any of its columns) joined with their prompts, each sample once: per prompt the anchor first, then by
    temperature, index and model."""
    prompt = pc.index_in(rows["prompt_id"], prompts["prompt_id"].combine_chunks()).to_numpy()
    codes = rows["sample_id"].combine_chunks().dictionary_encode().indices.to_numpy()
    _, once = np.unique(codes, return_index=True)
    order = np.lexsort(
        (
            *(_ranks(rows[name].combine_chunks())[once] for name in ("sampling", "adapter", "model_revision", "model")),
            rows["index"].to_numpy()[once],
            rows["temperature"].to_numpy()[once],
            ~rows["anchor"].to_numpy()[once],
            prompt[once],
        )
    )
    rows = take(rows, once[order])
    repeated = take(prompts.select(REPEATED), prompt[once[order]])
    return pa.table([repeated[f.name] if f.name in REPEATED else rows[f.name] for f in SAMPLES], schema=SAMPLES)


def _ranks(column: pa.Array) -> NDArray[np.int64]:
    """The rank (n,) of each text among the few texts of a column, null as the last."""
    encoded = column.dictionary_encode()
    ranks = np.argsort(np.argsort(np.array(encoded.dictionary.to_pylist(), object))) if len(encoded.dictionary) > 1 else [0]
    of_rows: NDArray[np.int64] = np.append(ranks, len(ranks))[encoded.indices.fill_null(len(ranks)).to_numpy()]
    return of_rows


def _recorded(parameters: dict[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    return {**parameters, "engine": dict(settings)} if settings else parameters


def parts_of_prompts(prompts: pa.Table) -> list[str]:
    """The parts of messages besides role and content, and the columns of prompts (schema PROMPTS), that occur."""
    turns = [chunk.flatten() for chunk in prompts["messages"].chunks]
    parts = {name for name in MESSAGE_PARTS[2:] if any(chunk.field(name).null_count < len(chunk) for chunk in turns)}
    columns = {"tools": "tools", "template": "chat_template_kwargs"}
    return sorted(parts | {part for name, part in columns.items() if prompts[name].null_count < prompts.num_rows})


def completion_parts(rows: pa.Table) -> list[str]:
    """The parts of messages that the completions of a shard have besides their text."""
    return [part for name, part in COMPLETION_PARTS.items() if rows[name].null_count < rows.num_rows]


def _completion_columns(completions: Sequence[Completion]) -> dict[str, Any]:
    return {
        "completion": pa.array([c.text for c in completions], pa.string()),
        "finish_reason": pa.array([c.finish_reason for c in completions], pa.string()),
        "stop_reason": pa.array([c.stop_reason for c in completions], pa.string()),
        "seed": pa.array([c.seed for c in completions], pa.int64()),
        "completion_ids": _lists([c.token_ids for c in completions], TOKENS),
        "logprobs": _lists([c.logprobs for c in completions], LOGPROBS),
        "top_ids": _lists([None if c.top_ids is None else c.top_ids.ravel() for c in completions], TOKENS),
        "top_logprobs": _lists([None if c.top_logprobs is None else c.top_logprobs.ravel() for c in completions], LOGPROBS),
        "cumulative_logprob": pa.array([c.cumulative_logprob for c in completions], pa.float64()),
    }


def _parts_columns(
    completions: Sequence[Completion],
    opened: Sequence[bool | None],
    marking: Marking | None,
    token_bytes: NDArray[np.int32] | None,
) -> dict[str, pa.Array]:
    """The columns reasoning, answer, tool_calls, reasoning_tokens and parsed_by: of completions that came apart, as they came."""
    apart = take_apart(pa.array([c.text for c in completions], pa.string()), marking, opened)
    tokens = [c.tokens_before(end, token_bytes) for c, end in zip(completions, apart.ends.tolist(), strict=True)]
    columns = {
        "reasoning": apart.reasoning,
        "answer": apart.answer,
        "reasoning_tokens": pa.array(tokens, pa.int32()),
        "parsed_by": pc.if_else(pa.array(apart.ends > 0), "marks", pa.scalar(None, pa.string())),
        "tool_calls": pa.nulls(len(completions), pa.string()),
    }
    came = np.array([c.parts is not None for c in completions], bool)
    if came.any():
        parts = [c.parts for c in completions if c.parts is not None]
        for name, column in columns.items():
            values = pa.array([getattr(part, name) for part in parts], column.type)
            columns[name] = pc.replace_with_mask(column, pa.array(came), values)
    return columns


def _lists(arrays: Sequence[NDArray[Any] | None], kind: pa.DataType) -> pa.Array:
    """Lists of numbers from one array per row, without a Python object per number; None is a null."""
    lengths = np.array([0 if array is None else len(array) for array in arrays], np.int64)
    offsets = np.zeros(len(arrays) + 1, np.int32)
    np.cumsum(lengths, out=offsets[1:])
    present = [array for array in arrays if array is not None]
    values = np.concatenate(present) if present else np.zeros(0)
    missing = np.array([array is None for array in arrays], bool)
    return pa.ListArray.from_arrays(
        offsets, pa.array(values, kind.value_type), type=kind, mask=pa.array(missing) if missing.any() else None
    )


def verdict_rows(label: str, filter_: Filter, rows: NDArray[np.int64], sample_ids: pa.Array, verdicts: pa.Table) -> pa.Table:
    """Verdict rows (schema VERDICTS) of one filter on the samples at `rows` of their shard."""
    count = len(rows)
    columns = {
        "row": pa.array(rows.astype(np.int32)),
        "sample_id": sample_ids,
        "filter": pa.repeat(pa.scalar(label, pa.string()), count),
        "filter_key": pa.repeat(pa.scalar(filter_.key, pa.string()), count),
        **{name: verdicts[name] for name in ("outcome", "reason", "score", "detail")},
    }
    return pa.table({name: columns[name] for name in VERDICTS.names}).cast(VERDICTS)


def filter_facts(
    label: str, spec: FilterSpec, filter_: Filter, *, seconds: float, known: int, exhaustive: bool
) -> dict[str, Any]:
    """What a verdict file notes about a filter. `known`: verdicts that an earlier pass had given."""
    return {
        "label": label,
        "name": filter_.name,
        "version": filter_.version,
        "key": filter_.key,
        "scope": filter_.scope.value,
        "role": filter_.role.value,
        "parameters": filter_.parameters,
        "families": spec.families,
        "seconds": round(seconds, 6),
        "known": known,
        "exhaustive": exhaustive,
    }
