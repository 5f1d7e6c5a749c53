"""Prompt, Sample and Verdict, and the Arrow schemas of the pool they are stored in.

A column that holds JSON text (`reference`, `metadata`, `sampling`, `detail`) is a plain string in the pool, so that any value
survives unchanged. docs/formats.md describes every column.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import pyarrow as pa

POOL_VERSION = 2
"""Raised when the columns below change their meaning. A pool of another version is refused."""


class Outcome(StrEnum):
    """A filter's decision about a sample."""

    KEEP = "keep"
    DROP = "drop"
    UNDECIDED = "undecided"


class Kind(StrEnum):
    """The result of all filters for a sample; null if they could not decide."""

    HIT = "hit"
    NEAR_MISS = "near_miss"
    MISS = "miss"
    DUPLICATE = "duplicate"


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class Prompt:
    """Chat messages, and the reference that verifiers need to judge an answer to them.

    `prompt_id` is the hash of messages and reference (thresher.ids). `reference` is any JSON value; None if the prompt has no
    reference. `metadata` belongs to the user and is stored unchanged.
    """

    prompt_id: str
    family: str
    messages: tuple[Message, ...]
    reference: Any = None
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Sample:
    """One completion of one prompt, as a filter sees it.

    `index` counts the samples of a prompt from 0; the anchor (greedy completion) has index -1. `finish_reason` is `stop`,
    `length` or `abort`, and None for imported samples that have none.
    """

    sample_id: str
    prompt_id: str
    family: str
    messages: tuple[Message, ...]
    completion: str
    index: int = 0
    anchor: bool = False
    finish_reason: str | None = None
    reference: Any = None
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Verdict:
    """The verdict of one filter on one sample.

    `reason` is a snake_case word from docs/verdicts.md, empty when kept. `score` is the filter's own number, if it has one.
    `detail` is a JSON object for readers of the audit: the offending span, the text of the error, the id of the repeated sample.
    """

    outcome: Outcome
    reason: str = ""
    score: float | None = None
    detail: Mapping[str, Any] | None = None

    @classmethod
    def keep(cls, score: float | None = None, **detail: Any) -> "Verdict":
        """The verdict of a filter that keeps the sample."""
        return cls(Outcome.KEEP, "", score, detail or None)

    @classmethod
    def drop(cls, reason: str, score: float | None = None, **detail: Any) -> "Verdict":
        """The verdict of a filter that drops the sample, with its reason."""
        return cls(Outcome.DROP, reason, score, detail or None)

    @classmethod
    def undecided(cls, reason: str, **detail: Any) -> "Verdict":
        """The verdict of a filter that could not judge: no reference, a time-out, its own failure. Never for a wrong answer."""
        return cls(Outcome.UNDECIDED, reason, None, detail or None)


CLASSES = ("pass", "fail", "unparsed", "unverifiable", "timeout", "crash", "verifier_error", "tampering")
"""Classes of a verifier's verdicts. Only pass and fail are evidence; each of the others has a rate of its own."""


def verdict_class(outcome: str, reason: str) -> str:
    """The class of a verdict. A sample that cannot be judged for lack of a reference is unverifiable."""
    if outcome != Outcome.UNDECIDED.value:
        return "pass" if outcome == Outcome.KEEP.value else "fail"
    if reason == "filter_error":
        return "verifier_error"
    return reason if reason in CLASSES[2:] else "unverifiable"


_encode = json.JSONEncoder(sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode


def to_json(value: Any) -> str:
    """The canonical JSON text of a value: sorted keys, no spaces, no NaN. Raises ValueError or TypeError if it has none."""
    return _encode(value)


MESSAGE = pa.struct([pa.field("role", pa.string(), nullable=False), pa.field("content", pa.string(), nullable=False)])
MESSAGES = pa.list_(pa.field("element", MESSAGE, nullable=False))
TOKENS = pa.list_(pa.field("element", pa.int32(), nullable=False))
LOGPROBS = pa.list_(pa.field("element", pa.float32(), nullable=False))

PROMPTS = pa.schema(
    [
        pa.field("prompt_id", pa.string(), nullable=False),
        pa.field("family", pa.string(), nullable=False),
        pa.field("messages", MESSAGES, nullable=False),
        pa.field("reference", pa.string()),
        pa.field("metadata", pa.string(), nullable=False),
    ],
    metadata={"thresher": f"prompts/{POOL_VERSION}"},
)
"""The prompts of a run: one row per prompt, one row group per shard. `reference` and `metadata` are JSON text."""

SAMPLES = pa.schema(
    [
        pa.field("sample_id", pa.string(), nullable=False),
        pa.field("prompt_id", pa.string(), nullable=False),
        pa.field("family", pa.string(), nullable=False),
        pa.field("index", pa.int32(), nullable=False),
        pa.field("anchor", pa.bool_(), nullable=False),
        pa.field("messages", MESSAGES, nullable=False),
        pa.field("reference", pa.string()),
        pa.field("metadata", pa.string(), nullable=False),
        pa.field("completion", pa.string(), nullable=False),
        pa.field("finish_reason", pa.string()),
        pa.field("stop_reason", pa.string()),
        pa.field("prompt_ids", TOKENS),
        pa.field("completion_ids", TOKENS),
        pa.field("logprobs", LOGPROBS),
        pa.field("cumulative_logprob", pa.float64()),
        pa.field("logprobs_kind", pa.string()),
        pa.field("sampling", pa.string()),
        pa.field("temperature", pa.float64()),
        pa.field("engine", pa.string()),
        pa.field("engine_version", pa.string()),
        pa.field("engine_seed", pa.int64()),
        pa.field("seed", pa.int64()),
        pa.field("source", pa.string()),
        pa.field("model", pa.string()),
        pa.field("model_revision", pa.string()),
        pa.field("chat_template_sha256", pa.string()),
        pa.field("source_row", pa.int64()),
        pa.field("unreadable", pa.string()),
        pa.field("error", pa.string()),
    ],
    metadata={"thresher": f"samples/{POOL_VERSION}"},
)
"""The pool: one row per sample. `source_row` and `unreadable` are for imported samples (row number from 0 in the user's file, and
why the row could not be read). `error` is why the engine could not draw a sample; such a sample is not judged."""

REPEATED = ("family", "messages", "reference", "metadata")
"""Columns that a sample shares with its prompt."""

JOURNAL = pa.schema(
    [
        *(f for f in SAMPLES if f.name not in REPEATED),
        pa.field("calibrated_tokens", pa.int64()),
        pa.field("calibration", pa.list_(pa.field("element", pa.float64(), nullable=False))),
    ],
    metadata={"thresher": f"journal/{POOL_VERSION}"},
)
"""Rows of an unfinished shard: its samples without the columns of their prompt. The first row of a calibrated group has the
tokens and sums of thresher.estimators.calibration for the whole group."""

VERDICTS = pa.schema(
    [
        pa.field("row", pa.int32(), nullable=False),
        pa.field("sample_id", pa.string(), nullable=False),
        pa.field("filter", pa.string(), nullable=False),
        pa.field("filter_key", pa.string(), nullable=False),
        pa.field("outcome", pa.string(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("score", pa.float64()),
        pa.field("detail", pa.string()),
    ],
    metadata={"thresher": f"verdicts/{POOL_VERSION}"},
)
"""One row per sample and filter that judged it. `row` is the sample's row in its shard, `filter_key` the hash of the filter's
name, version and parameters."""
