"""The views: what the dataset's configs hold, as pure functions of one judged shard (thresher.pool.judged.judged).

    sft        one row per hit, prompt and completion: ready to fine-tune on
    preference, unpaired: see thresher.dataset.preference_views
    prompts    one row per prompt: how often the model got it right
    rollouts   one row per sample, anchors and undecided ones included, with tokens, logprobs and every verdict

Column names keep clear of those TRL gives a meaning of its own (input_ids, labels, completion_mask, tools, margin and others).
Anchors are rows of `rollouts` only, and count in no number of `prompts`.
"""

import json
from collections.abc import Callable, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from filters.similarity.guards import answer_ids
from schemas.sample import Kind, Outcome
from schemas.sampling import Sampling
from thresher.pool.judged import FilterFacts, _whole, pass_rates, prompt_counts

JSON = pa.json_()
CHAT = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
VERDICT_LIST = pa.list_(
    pa.struct(
        [
            ("filter", pa.string()),
            ("version", pa.string()),
            ("outcome", pa.string()),
            ("reason", pa.string()),
            ("score", pa.float64()),
            ("detail", JSON),
        ]
    )
)
_SAID = None  # The type of prompt and completion: CHAT, or plain text for a base model.
_TEXT, _REAL, _COUNT = pa.string(), pa.float64(), pa.int32()

Column = tuple[str, pa.DataType | None, str]

_ASKED: tuple[Column, ...] = (
    ("prompt_id", _TEXT, "hash of the prompt and its reference"),
    ("family", _TEXT, "task family"),
    ("prompt", _SAID, "what was asked"),
)
_METADATA: Column = ("metadata", JSON, "the source row's other fields, untouched; null where it has none")

COLUMNS: dict[str, tuple[Column, ...]] = {
    "sft": (
        ("sample_id", _TEXT, "hash that names the sample"),
        *_ASKED,
        ("completion", _SAID, "the answer, as sampled"),
        ("cumulative_logprob", _REAL, "natural log-probability of the whole completion; null where unknown"),
        ("completion_tokens", _COUNT, "length of the completion in tokens; null where unknown"),
        ("multiplicity", _COUNT, "draws that fell on this answer: itself and its duplicates"),
        ("answer_id", _TEXT, "hash of the reference that a verifier accepted; null where none did"),
        _METADATA,
    ),
    "preference": (
        *_ASKED,
        ("chosen", _SAID, "the hit that the rejected answer is nearest to"),
        ("rejected", _SAID, "a near miss: fails a verifier, a few words away from the chosen answer"),
        ("chosen_id", _TEXT, "sample_id of the chosen answer"),
        ("rejected_id", _TEXT, "sample_id of the rejected one"),
        ("similarity", _REAL, "of the two, 0 to 1: 1 - edits / words of the longer"),
        ("reason", _TEXT, "why the rejected answer was dropped"),
        ("chosen_logprob", _REAL, "natural log-probability of the chosen completion; null where unknown"),
        ("rejected_logprob", _REAL, "natural log-probability of the rejected completion; null where unknown"),
        _METADATA,
    ),
    "unpaired": (
        ("sample_id", _TEXT, "hash that names the sample"),
        *_ASKED,
        ("completion", _SAID, "the answer, as sampled"),
        ("label", pa.bool_(), "whether it is right: a hit, or else a miss"),
        ("kind", _TEXT, "hit, near_miss or miss"),
        ("cumulative_logprob", _REAL, "natural log-probability of the whole completion; null where unknown"),
        _METADATA,
    ),
    "prompts": (
        *_ASKED,
        ("reference", _TEXT, "reference answer, as JSON where it is no text; null where there is none"),
        ("samples", _COUNT, "samples drawn, without the anchor"),
        ("decided", _COUNT, "samples that were judged, right or wrong"),
        ("passed", _COUNT, "samples that passed: hits and duplicates"),
        ("hits", _COUNT, "distinct samples kept"),
        ("duplicates", _COUNT, "samples that passed but repeat another"),
        ("undecided", _COUNT, "samples that could not be judged"),
        (
            "pass_rate",
            _REAL,
            "unbiased estimate, 0 to 1: passed / decided, corrected for target_hits; null where none was decided",
        ),
        ("anchor_passed", pa.bool_(), "whether the greedy answer passed; null where there is none, or it is undecided"),
        _METADATA,
    ),
    "rollouts": (
        ("sample_id", _TEXT, "hash that names the sample"),
        ("prompt_id", _TEXT, "hash of the prompt and its reference"),
        ("group_id", _TEXT, "samples of one group answer one prompt; equals prompt_id"),
        ("family", _TEXT, "task family"),
        ("index", _COUNT, "number of the sample among its prompt's, from 0; the anchor has -1"),
        ("anchor", pa.bool_(), "whether this is the greedy answer (temperature 0)"),
        ("prompt", _SAID, "what was asked"),
        ("completion", _SAID, "the answer, as sampled"),
        ("outcome", _TEXT, "keep, drop or undecided"),
        ("kind", _TEXT, "hit, duplicate, near_miss or miss; null where dropped for quality or undecided"),
        ("reason", _TEXT, "why it was not kept; empty where it was"),
        ("failed_filter", _TEXT, "the filter that did not keep it; null where all did"),
        ("detail", JSON, "what that filter found; null where it says nothing"),
        ("nearest", _TEXT, "sample_id that a duplicate repeats, or of the hit that a near miss is nearest to; else null"),
        ("similarity", _REAL, "to it, 0 to 1: of shingles for a duplicate, of words in order for a near miss; else null"),
        ("multiplicity", _COUNT, "draws that fell on a hit: itself and its duplicates; null for others"),
        ("reference", _TEXT, "reference answer, as JSON where it is no text; null where there is none"),
        ("prompt_ids", pa.list_(pa.int32()), "tokens the engine was given; null where unknown"),
        ("completion_ids", pa.list_(pa.int32()), "tokens sampled; null where unknown"),
        ("logprobs", pa.list_(pa.float32()), "natural log-probability of each sampled token; null where unknown"),
        ("cumulative_logprob", _REAL, "their sum; null where unknown"),
        ("logprobs_kind", _TEXT, "what they are of: `raw` is the model's own distribution; null where unknown"),
        ("finish_reason", _TEXT, "stop, length or abort; null where unknown"),
        ("stop_reason", _TEXT, "the stop string or token that ended it; null where none did"),
        ("sampling", JSON, "sampling parameters in force; null where unknown"),
        ("temperature", _REAL, "the temperature among them: 1 is the model's own distribution; null where unknown"),
        ("engine", _TEXT, "what ran the model; `brought` where the sample was brought along"),
        ("engine_version", _TEXT, "its version; null where unknown"),
        ("engine_seed", pa.int64(), "its seed; null where unknown"),
        ("seed", pa.int64(), "the seed of this very sample; null where only the engine has one"),
        ("source", _TEXT, "start of the engine, or server, that it came from; null where unknown"),
        ("policy_model", _TEXT, "the model sampled from; null where unknown"),
        ("policy_revision", _TEXT, "its revision; null where unknown"),
        ("chat_template_sha256", _TEXT, "hash of its chat template; null where it has none"),
        ("reward", _REAL, "1 where every verifier kept it, 0 where one did not, null where that is open"),
        ("verdicts", VERDICT_LIST, "what each filter that saw it said, in order"),
        ("error", _TEXT, "why the engine could not draw it; null where it did"),
        ("source_row", pa.int64(), "row in the user's own file, from 0; null where it was sampled here"),
        _METADATA,
    ),
    "revoked": (
        ("sample_id", _TEXT, "hash that names the sample that was taken back"),
        ("reason", _TEXT, "why"),
        ("version", _TEXT, "release since which it is"),
    ),
}
"""Per view its columns: name, Arrow type (None: chat messages or plain text, as the model was prompted) and meaning, which says
so where a column may be null. `revoked` is no view of a run: a repository has it once samples were taken back."""

OPTIONAL = ("preference", "unpaired")
"""Views that a dataset has no config for where they have no rows."""

FILTERED_ON = ("unreadable", "error")
"""Columns of the pool that a view reads but does not hold."""

_HEAVY = {"prompt_ids", "completion_ids", "logprobs"}


def schema(view: str, prompt_format: str) -> pa.Schema:
    """The Arrow schema of a view. `prompt_format` is that of the run's model: chat or text."""
    said = CHAT if prompt_format == "chat" else pa.string()
    return pa.schema([(name, said if kind is None else kind) for name, kind, _ in COLUMNS[view]])


def held_out(prompts: pa.ChunkedArray, share: float) -> NDArray[np.bool_]:
    """Which rows belong to the split `test`, by their prompt_id (n,): the first 32 bits of the hash, as a share of 2^32."""
    names = prompts.combine_chunks().dictionary_encode()
    out = np.array([int(name[:8], 16) < share * 2**32 for name in names.dictionary.to_pylist()], bool)
    found: NDArray[np.bool_] = out[names.indices.to_numpy()] if len(out) else np.zeros(0, bool)
    return found


def unread(views: Sequence[str]) -> set[str]:
    """Columns of the pool that these views can do without."""
    if "rollouts" in views:
        return set()
    return _HEAVY - ({"completion_ids"} if "sft" in views else set())


def lean(judged: pa.Table) -> pa.Table:
    """Without the columns that have a value per token: copying those for the rows of a view would cost more than all others."""
    return judged.drop_columns([name for name in judged.column_names if name in _HEAVY])


def sft(judged: pa.Table, prompt_format: str) -> pa.Table:
    """The hits that are no anchors."""
    mine = pc.and_(pc.equal(judged["kind"], Kind.HIT.value), pc.invert(judged["anchor"]))
    wanted = {*schema("sft", prompt_format).names, "messages", "answer"}
    hits = judged.select([name for name in judged.column_names if name in wanted]).filter(mine)
    columns = {
        **said(hits, prompt_format),
        "completion_tokens": pc.list_value_length(judged["completion_ids"]).filter(mine),
        "answer_id": answer_ids(hits["answer"]),
    }
    return made("sft", hits, columns, prompt_format)


def prompts(judged: pa.Table, prompt_format: str, sampling: Sampling | None = None) -> pa.Table:
    """One row per prompt, in the order of the pool; reference and metadata are those of its first sample. `sampling` says whether
    drawing stopped because of what was found."""
    judged = judged.filter(pc.is_null(judged["unreadable"]))
    first, prompt, counts = prompt_counts(judged)
    rows = judged.take(pa.array(first))
    decided = counts["samples"] - counts["undecided"]
    of_anchor = np.full(len(first), -1, np.int64)
    anchors = np.flatnonzero(judged["anchor"].to_numpy())
    of_anchor[prompt[anchors]] = anchors
    columns = {
        **said(rows, prompt_format),
        **{name: pa.array(count, pa.int32()) for name, count in counts.items()},
        "decided": pa.array(decided, pa.int32()),
        "pass_rate": pa.array(pass_rates(judged, sampling), pa.float64()),
        "anchor_passed": pc.equal(reward(judged, quality=0.0), 1.0).take(pa.array(of_anchor, mask=of_anchor < 0)),
        "reference": _references(rows["reference"]),
    }
    return made("prompts", rows, columns, prompt_format)


def rollouts(judged: pa.Table, given: pa.Table, filters: Sequence[FilterFacts], prompt_format: str) -> pa.Table:
    """Every sample, in the order of the pool; `given` holds the verdicts on them (schema VERDICTS) of these filters."""
    columns = {
        **said(judged, prompt_format),
        "group_id": judged["prompt_id"],
        "policy_model": judged["model"],
        "policy_revision": judged["model_revision"],
        "reference": _references(judged["reference"]),
        "reward": reward(judged),
        "multiplicity": pc.if_else(pc.equal(judged["kind"], Kind.HIT.value), judged["multiplicity"], pa.scalar(None, pa.int32())),
        "verdicts": _verdict_lists(judged.num_rows, given, filters),
    }
    return made("rollouts", judged, columns, prompt_format)


def reward(judged: pa.Table, quality: float | None = None) -> pa.ChunkedArray:
    """1 for hits and duplicates, 0 for misses, null for the undecided; `quality` for what was dropped for its form."""
    passed = pc.is_in(judged["kind"], pa.array([Kind.HIT.value, Kind.DUPLICATE.value]))
    missed = pc.is_in(judged["kind"], pa.array([Kind.MISS.value, Kind.NEAR_MISS.value]))
    dropped = pc.equal(judged["outcome"], Outcome.DROP.value)
    one, zero = pa.scalar(1.0), pa.scalar(0.0)
    return pc.case_when(pc.make_struct(passed, missed, dropped), one, zero, pa.scalar(quality, pa.float64()))


# -- inside --------------------------------------------------------------------------------------------------------------


def made(view: str, rows: pa.Table, columns: dict[str, pa.ChunkedArray | pa.Array], prompt_format: str) -> pa.Table:
    """A table of the view's schema, from `columns` and, for the rest, from the pool's own."""
    wanted = schema(view, prompt_format)
    columns = {name: _json(rows[name]) for name in wanted.names if wanted.field(name).type == JSON} | columns
    return pa.table([columns[name] if name in columns else rows[name] for name in wanted.names], wanted.names).cast(wanted)


def said(rows: pa.Table, prompt_format: str) -> dict[str, pa.ChunkedArray]:
    """Prompt and completion, as chat messages or as the plain text that a base model is given."""
    if prompt_format == "chat":
        return {
            "prompt": _each(rows["messages"], lambda turns: turns, CHAT),
            "completion": _each(rows["completion"], _assistant, CHAT),
        }
    return {"prompt": _each(rows["messages"], _joined, pa.string()), "completion": rows["completion"]}


def _each(column: pa.ChunkedArray, made: Callable[[pa.Array], pa.Array], kind: pa.DataType) -> pa.ChunkedArray:
    return pa.chunked_array([made(chunk).cast(kind) for chunk in column.chunks], kind)


def _assistant(texts: pa.Array) -> pa.Array:
    said = pa.StructArray.from_arrays([pa.repeat("assistant", len(texts)), texts], names=["role", "content"])
    return pa.ListArray.from_arrays(pa.array(np.arange(len(texts) + 1, dtype=np.int32)), said)


def _joined(turns: pa.Array) -> pa.Array:
    """The contents of the messages, a blank line between: what thresher.samplers.sampler.plain_text gives an engine."""
    return pc.binary_join(pa.ListArray.from_arrays(turns.offsets, turns.values.field("content")), "\n\n")


def _json(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """JSON text as JSON. Integers beyond 64 bits become text: `datasets` 5 cannot read a row that holds one."""
    texts = pc.unique(column)  # sampling parameters and metadata repeat
    if pc.any(pc.match_substring_regex(texts, r"\d{19}")).as_py():
        long = pc.fill_null(pc.match_substring_regex(column, r"\d{19}"), False)
        read = [None if text is None else _short(text) for text in column.filter(long).to_pylist()]
        column = pc.replace_with_mask(column, _whole(long), pa.array(read, pa.string()))
    return column.cast(JSON)


def _short(text: str) -> str:
    def integer(digits: str) -> int | str:
        return int(digits) if len(digits) <= 20 and -(2**63) <= int(digits) < 2**64 else digits

    return json.dumps(json.loads(text, parse_int=integer), separators=(",", ":"))


def _references(column: pa.ChunkedArray) -> pa.Array:
    """References as text. They repeat with their prompt, so each is decoded once."""
    encoded = _whole(column).dictionary_encode()
    read = [json.loads(text) for text in encoded.dictionary.to_pylist()]
    texts = [
        value if isinstance(value, str) else None if value is None else text
        for value, text in zip(read, encoded.dictionary.to_pylist(), strict=True)
    ]
    return pa.array(texts, pa.string()).take(encoded.indices)


def _verdict_lists(rows: int, given: pa.Table, filters: Sequence[FilterFacts]) -> pa.Array:
    """The verdicts on each row, as a list in the order the filters ran."""
    at = given["row"].to_numpy()
    given = given.take(pa.array(np.argsort(at, kind="stable")))
    offsets = np.concatenate([[0], np.cumsum(np.bincount(at, minlength=rows))])
    labels = pa.array([facts.label for facts in filters], pa.string())
    versions = pa.array([facts.version for facts in filters], pa.string())
    columns = {
        **{name: _whole(given[name]) for name in ("filter", "outcome", "reason", "score")},
        "version": versions.take(_whole(pc.index_in(given["filter"], labels))),
        "detail": _whole(_json(given["detail"])),
    }
    names = [field.name for field in VERDICT_LIST.value_type]
    verdicts = pa.StructArray.from_arrays([columns[name] for name in names], names=names)
    return pa.ListArray.from_arrays(pa.array(offsets.astype(np.int32)), verdicts)
