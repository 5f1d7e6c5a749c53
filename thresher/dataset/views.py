"""The views: the rows of the dataset's configs, as pure functions of one judged shard (thresher.pool.judged.judged).

    sft        one row per hit, with prompt and completion: ready for fine-tuning
    prompts    one row per prompt: how often the model answered it right
    preference, unpaired: see thresher.dataset.preference_views
    rollouts: see thresher.dataset.rollouts
    distill: see thresher.dataset.distill
    tokens: see thresher.dataset.tokens

Column names avoid those to which TRL gives a meaning (input_ids, labels, completion_mask, tools, margin and others); `distill`
and `tokens` have them and mean the same. Anchors are rows of `rollouts` only, and count in no number of `prompts`.
"""

import json
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from filters.chunks import take
from filters.similarity.guards import answer_ids
from schemas.sample import Kind, Outcome
from schemas.sampling import Sampling
from thresher.dataset.bare_prompts import Examples, without_examples
from thresher.dataset.messages import JSON, completion_column, has, message_type, prompt_column
from thresher.pool.prompt_counts import pass_rates, prompt_counts

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
_MESSAGES = None
"""Type of prompts and completions: chat messages, or plain text for a base model; see thresher.dataset.messages."""
_TEXT, _REAL, _COUNT = pa.string(), pa.float64(), pa.int32()

Column = tuple[str, pa.DataType | None, str]

_PROMPT: tuple[Column, ...] = (
    ("prompt_id", _TEXT, "hash of the prompt and its reference"),
    ("family", _TEXT, "task family"),
    ("prompt", _MESSAGES, "the prompt"),
    ("tools", JSON, "tools that the model could call, as JSON Schemas; null if it has none; only in a run with tools"),
    ("chat_template_kwargs", JSON, "further arguments of the chat template; null if it has none; only in a run with such"),
)
_METADATA: Column = ("metadata", JSON, "the other fields of the source row, unchanged; null if it has none")

COLUMNS: dict[str, tuple[Column, ...]] = {
    "sft": (
        ("sample_id", _TEXT, "hash that identifies the sample"),
        *_PROMPT,
        ("completion", _MESSAGES, "the answer, as sampled"),
        ("cumulative_logprob", _REAL, "natural log-probability of the whole completion; null if unknown"),
        ("completion_tokens", _COUNT, "length of the completion in tokens, reasoning included; null if unknown"),
        ("reasoning_tokens", _COUNT, "length of its reasoning in tokens, 0 without reasoning; null if unknown"),
        ("multiplicity", _COUNT, "number of draws with this answer: the sample and its duplicates"),
        ("answer_id", _TEXT, "hash of the reference that a verifier accepted; null if none did"),
        _METADATA,
    ),
    "preference": (
        *_PROMPT,
        ("chosen", _MESSAGES, "the hit that the rejected answer is nearest to"),
        ("rejected", _MESSAGES, "a near miss: a verifier dropped it, and it differs from the chosen answer by a few words"),
        ("chosen_id", _TEXT, "sample_id of the chosen answer"),
        ("rejected_id", _TEXT, "sample_id of the rejected answer"),
        ("similarity", _REAL, "of the two answers, 0 to 1: 1 - edits / words of the longer"),
        ("reason", _TEXT, "why the rejected answer was dropped"),
        ("chosen_logprob", _REAL, "natural log-probability of the chosen completion; null if unknown"),
        ("rejected_logprob", _REAL, "natural log-probability of the rejected completion; null if unknown"),
        _METADATA,
    ),
    "unpaired": (
        ("sample_id", _TEXT, "hash that identifies the sample"),
        *_PROMPT,
        ("completion", _MESSAGES, "the answer, as sampled"),
        ("label", pa.bool_(), "whether the answer is right: true for a hit, false for a miss"),
        ("kind", _TEXT, "hit, near_miss or miss"),
        ("cumulative_logprob", _REAL, "natural log-probability of the whole completion; null if unknown"),
        _METADATA,
    ),
    "prompts": (
        *_PROMPT,
        ("reference", _TEXT, "reference answer, as JSON if it is not text; null if there is none"),
        ("samples", _COUNT, "samples drawn, without the anchor"),
        ("decided", _COUNT, "samples that were judged right or wrong"),
        ("passed", _COUNT, "samples that passed: hits and duplicates"),
        ("hits", _COUNT, "distinct samples that were kept"),
        ("duplicates", _COUNT, "samples that passed but repeat another"),
        ("undecided", _COUNT, "samples that could not be judged"),
        (
            "pass_rate",
            _REAL,
            "unbiased estimate, 0 to 1: passed / decided, corrected for target_hits; null if no sample was decided",
        ),
        ("anchor_passed", pa.bool_(), "whether the greedy answer passed; null if there is none or it is undecided"),
        _METADATA,
    ),
    "rollouts": (
        ("sample_id", _TEXT, "hash that identifies the sample"),
        ("prompt_id", _TEXT, "hash of the prompt and its reference"),
        ("group_id", _TEXT, "the samples of a group answer the same prompt; equals prompt_id"),
        ("family", _TEXT, "task family"),
        ("index", _COUNT, "number of the sample within its prompt, from 0; -1 for the anchor"),
        ("anchor", pa.bool_(), "whether this is the greedy answer (temperature 0)"),
        ("prompt", _MESSAGES, "the prompt"),
        ("tools", JSON, "tools that the model could call, as JSON Schemas; null if it has none; only in a run with tools"),
        ("chat_template_kwargs", JSON, "further arguments of the chat template; null if it has none; only in a run with such"),
        ("completion", _MESSAGES, "the answer, as sampled"),
        ("outcome", _TEXT, "keep, drop or undecided"),
        ("kind", _TEXT, "hit, duplicate, near_miss or miss; null if dropped for quality or undecided"),
        ("reason", _TEXT, "why it was not kept; empty if it was kept"),
        ("failed_filter", _TEXT, "the filter that did not keep it; null if all did"),
        ("detail", JSON, "details from that filter; null if it gives none"),
        ("nearest", _TEXT, "sample_id of the sample that a duplicate repeats, or of the hit nearest to a near miss; else null"),
        ("similarity", _REAL, "to `nearest`, 0 to 1: of shingles for a duplicate, of words in order for a near miss; else null"),
        ("multiplicity", _COUNT, "for a hit, the number of draws with this answer: the sample and its duplicates; else null"),
        ("reference", _TEXT, "reference answer, as JSON if it is not text; null if there is none"),
        ("prompt_ids", pa.list_(pa.int32()), "tokens of the prompt; null if unknown"),
        ("completion_ids", pa.list_(pa.int32()), "sampled tokens, those of the reasoning included; null if unknown"),
        ("reasoning_tokens", _COUNT, "tokens up to the end of the reasoning, 0 without reasoning; null if unknown"),
        ("parsed_by", _TEXT, "what told reasoning, answer and tool calls apart; null if there was nothing to tell apart"),
        ("logprobs", pa.list_(pa.float32()), "natural log-probability of each sampled token; null if unknown"),
        ("cumulative_logprob", _REAL, "sum of `logprobs`; null if unknown"),
        ("logprobs_kind", _TEXT, "distribution of the log-probabilities: `raw` is the model's own; null if unknown"),
        ("finish_reason", _TEXT, "stop, length or abort; null if unknown"),
        ("stop_reason", _TEXT, "the stop string or token that ended it; null if none did"),
        ("sampling", JSON, "sampling parameters; null if unknown"),
        ("temperature", _REAL, "sampling temperature: 1 is the model's own distribution; null if unknown"),
        ("engine", _TEXT, "engine that ran the model; `brought` for an imported sample"),
        ("engine_version", _TEXT, "version of the engine; null if unknown"),
        ("engine_seed", pa.int64(), "seed of the engine; null if unknown"),
        ("seed", pa.int64(), "seed of this sample; null if only the engine has a seed"),
        ("source", _TEXT, "engine start, or server, that produced it; null if unknown"),
        ("policy_model", _TEXT, "name of the model; null if unknown"),
        ("policy_revision", _TEXT, "revision of the model; null if unknown"),
        ("policy_adapter", _TEXT, "LoRA adapter it was drawn with, NAME@REVISION; null if none"),
        ("chat_template_sha256", _TEXT, "hash of the model's chat template; null if it has none"),
        ("reward", _REAL, "1 if every verifier kept it, 0 if a verifier dropped it, null if undecided"),
        ("verdicts", VERDICT_LIST, "verdicts of the filters that saw it, in order"),
        ("error", _TEXT, "why the engine could not draw it; null if it did"),
        ("source_row", pa.int64(), "row of an imported sample in its file, from 0; null if thresher sampled it"),
        _METADATA,
    ),
    "distill": (
        ("sample_id", _TEXT, "hash that identifies the sample"),
        ("prompt_id", _TEXT, "hash of the prompt and its reference"),
        ("family", _TEXT, "task family"),
        ("input_ids", pa.list_(pa.int32()), "tokens of the prompt, then the sampled tokens"),
        ("completion_mask", pa.list_(pa.int8()), "1 for each sampled token, 0 for each of the prompt"),
        (
            "teacher_topk_ids",
            pa.list_(pa.list_(pa.int32())),
            "for each token the model's k likeliest and, where it is none of them, the sampled one: k + 1, filled with -1",
        ),
        (
            "teacher_topk_logprobs",
            pa.list_(pa.list_(pa.float32())),
            "their natural log-probabilities, filled with minus infinity",
        ),
        ("logprobs_kind", _TEXT, "distribution of the log-probabilities: `raw` is the model's own; null if unknown"),
    ),
    "tokens": (
        ("sample_id", _TEXT, "hash that identifies the sample"),
        ("prompt_id", _TEXT, "hash of the prompt and its reference"),
        ("family", _TEXT, "task family"),
        ("input_ids", pa.list_(pa.int32()), "tokens of the prompt, then the sampled tokens"),
        ("labels", pa.list_(pa.int32()), "the sampled tokens, and -100 for each token of the prompt"),
        ("completion_mask", pa.list_(pa.int8()), "1 for each sampled token, 0 for each of the prompt"),
        ("multiplicity", _COUNT, "number of draws with this answer: the sample and its duplicates"),
    ),
    "revoked": (
        ("sample_id", _TEXT, "hash that identifies the revoked sample"),
        ("reason", _TEXT, "why it was revoked"),
        ("version", _TEXT, "first release in which it is revoked"),
    ),
}
"""The columns of each view: name, Arrow type (None: chat messages or plain text, depending on the prompt format) and meaning.
The meaning contains the word "null" exactly if the column may be null. `revoked` is not a view of a run: a repository has it
once samples were revoked."""


IN_SOME_RUNS = ("tools", "chat_template_kwargs")
"""Columns that only the views of runs have in which they occur."""

FILTERED_ON = ("unreadable", "error")
"""Columns of the pool that a view reads but does not contain."""

_SHOWN = ("messages", "completion", "answer", "reasoning", "tool_calls", "tools", "template")
"""Columns of the pool that prompts and completions are made from."""

_ROLLOUT_TOKENS = {"prompt_ids", "completion_ids", "logprobs"}
_HEAVY = {*_ROLLOUT_TOKENS, "top_ids", "top_logprobs"}
"""Columns with a value per token."""


def schema(view: str, prompt_format: str) -> pa.Schema:
    """The Arrow schema of a view. `prompt_format` is the form of the run's messages (thresher.dataset.messages)."""
    messages = message_type(prompt_format)
    columns = [column for column in COLUMNS[view] if column[0] not in IN_SOME_RUNS or has(prompt_format, column[0])]
    return pa.schema([(name, messages if kind is None else kind) for name, kind, _ in columns])


def held_out(prompts: pa.ChunkedArray, share: float) -> NDArray[np.bool_]:
    """Which rows belong to the split `test`, by their prompt_id (n,): the first 32 bits of the hash, as a share of 2^32."""
    names = prompts.combine_chunks().dictionary_encode()
    out = np.array([int(name[:8], 16) < share * 2**32 for name in names.dictionary.to_pylist()], bool)
    mask: NDArray[np.bool_] = out[names.indices.to_numpy()] if len(out) else np.zeros(0, bool)
    return mask


def unread(views: Sequence[str]) -> set[str]:
    """Columns of the pool that these views do not need."""
    if "distill" in views:
        return set()
    of_view = {"rollouts": _ROLLOUT_TOKENS, "sft": {"completion_ids"}, "tokens": {"prompt_ids", "completion_ids"}}
    return _HEAVY - {name for view in views for name in of_view.get(view, ())}


def lean(judged: pa.Table) -> pa.Table:
    """Drop the columns with a value per token: copying them for the rows of a view would cost more than all others."""
    return judged.drop_columns([name for name in judged.column_names if name in _HEAVY])


def sft(judged: pa.Table, prompt_format: str, examples: Examples | None = None) -> pa.Table:
    """The hits, without anchors. The prompts lack the worked `examples`, where they are given."""
    is_row = pc.and_(pc.equal(judged["kind"], Kind.HIT.value), pc.invert(judged["anchor"]))
    wanted = {*schema("sft", prompt_format).names, *_SHOWN, "accepted"}
    hits = judged.select([name for name in judged.column_names if name in wanted]).filter(is_row)
    hits = without_examples(hits, examples or {})
    columns = {
        **prompt_and_completion(hits, prompt_format),
        "completion_tokens": pc.list_value_length(judged["completion_ids"]).filter(is_row),
        "answer_id": answer_ids(hits["accepted"]),
    }
    return view_table("sft", hits, columns, prompt_format)


def prompts(
    judged: pa.Table, prompt_format: str, sampling: Sampling | None = None, models: NDArray[np.int64] | None = None
) -> pa.Table:
    """One row per prompt, in the order of the pool; reference and metadata are those of its first sample. `sampling` tells
    whether results decided when drawing stopped. `models` (n,) has the number of the model that drew each row, where there are
    several: then the counts are those of all, and the pass rate is the mean of theirs."""
    readable = pc.is_null(judged["unreadable"])
    judged, models = judged.filter(readable), None if models is None else models[readable.to_numpy()]
    first, prompt, counts = prompt_counts(judged)
    rows = take(judged, first)
    decided = counts["samples"] - counts["undecided"]
    anchor_of = np.full(len(first), -1, np.int64)
    passed = pc.equal(reward(judged, quality=0.0), 1.0)
    anchors = np.flatnonzero(judged["anchor"].to_numpy())
    # Of the anchors of several models one that failed decides, then one that is undecided: the last one is taken.
    ranks = pc.if_else(pc.is_null(passed), 1, pc.if_else(passed, 0, 2)).to_numpy()[anchors]
    anchors = anchors[np.argsort(ranks, kind="stable")]
    anchor_of[prompt[anchors]] = anchors
    columns = {
        **prompt_and_completion(rows, prompt_format),
        **{name: pa.array(count, pa.int32()) for name, count in counts.items()},
        "decided": pa.array(decided, pa.int32()),
        "pass_rate": pa.array(pass_rates(judged, sampling, models), pa.float64()),
        "anchor_passed": passed.take(pa.array(anchor_of, mask=anchor_of < 0)),
        "reference": references(rows["reference"]),
    }
    return view_table("prompts", rows, columns, prompt_format)


def reward(judged: pa.Table, quality: float | None = None) -> pa.ChunkedArray:
    """1 for hits and duplicates, 0 for misses, null for undecided samples; `quality` for samples dropped for their form."""
    passed = pc.is_in(judged["kind"], pa.array([Kind.HIT.value, Kind.DUPLICATE.value]))
    missed = pc.is_in(judged["kind"], pa.array([Kind.MISS.value, Kind.NEAR_MISS.value]))
    dropped = pc.equal(judged["outcome"], Outcome.DROP.value)
    right, wrong = pa.scalar(1.0), pa.scalar(0.0)
    return pc.case_when(pc.make_struct(passed, missed, dropped), right, wrong, pa.scalar(quality, pa.float64()))


# -- columns -------------------------------------------------------------------------------------------------------------


def view_table(view: str, rows: pa.Table, columns: dict[str, pa.ChunkedArray | pa.Array], prompt_format: str) -> pa.Table:
    """Build a table of the view's schema from `columns`, and from the pool's own columns for the rest."""
    wanted = schema(view, prompt_format)
    if "chat_template_kwargs" in wanted.names:
        rows = rows.append_column("chat_template_kwargs", rows["template"])
    columns = {name: json_column(rows[name]) for name in wanted.names if wanted.field(name).type == JSON} | columns
    return pa.table([columns[name] if name in columns else rows[name] for name in wanted.names], wanted.names).cast(wanted)


def prompt_and_completion(rows: pa.Table, prompt_format: str) -> dict[str, pa.ChunkedArray]:
    """The columns `prompt` and `completion`, as chat messages or as plain text for a base model."""
    return {
        "prompt": prompt_column(rows["messages"], prompt_format),
        "completion": completion_column(rows, prompt_format),
    }


def json_column(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Convert JSON text to the JSON type. Integers beyond 64 bits become text: `datasets` 5 cannot read a row that contains
    one."""
    return pa.chunked_array([_readable_json(chunk) for chunk in column.chunks], pa.string()).cast(JSON)


def references(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """References as text. They repeat with their prompt, so each is decoded once."""
    return pa.chunked_array([_references(chunk) for chunk in column.chunks], pa.string())


# -- inside --------------------------------------------------------------------------------------------------------------


def _references(column: pa.Array) -> pa.Array:
    encoded = column.dictionary_encode()
    values = [json.loads(text) for text in encoded.dictionary.to_pylist()]
    texts = [
        value if isinstance(value, str) else None if value is None else text
        for value, text in zip(values, encoded.dictionary.to_pylist(), strict=True)
    ]
    return pa.array(texts, pa.string()).take(encoded.indices)


def _readable_json(column: pa.Array) -> pa.Array:
    texts = pc.unique(column)  # sampling parameters and metadata repeat
    if not pc.any(pc.match_substring_regex(texts, r"\d{19}")).as_py():
        return column
    long = pc.fill_null(pc.match_substring_regex(column, r"\d{19}"), False)
    shortened = [None if text is None else _shortened(text) for text in column.filter(long).to_pylist()]
    return pc.replace_with_mask(column, long, pa.array(shortened, pa.string()))


def _shortened(text: str) -> str:
    def integer(digits: str) -> int | str:
        return int(digits) if len(digits) <= 20 and -(2**63) <= int(digits) < 2**64 else digits

    return json.dumps(json.loads(text, parse_int=integer), separators=(",", ":"))
