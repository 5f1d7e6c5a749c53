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

POOL_VERSION = 3
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
    """One turn of a conversation, as chat templates know it.

    `content` is text; a turn that consists of tool calls may have "". `tool_calls` is the JSON text of a list of
    {id, type, function: {name, arguments}}, with `arguments` as an object. `tool_call_id` and `name` belong to the result of a
    tool. An absent part is None, and is not shown to a template.
    """

    role: str
    content: str
    reasoning_content: str | None = None
    tool_calls: str | None = None
    tool_call_id: str | None = None
    name: str | None = None

    @property
    def parts(self) -> dict[str, str]:
        """The parts that the message has, JSON text as it is."""
        return {part: text for part in MESSAGE_PARTS if (text := getattr(self, part)) is not None}

    def as_chat(self) -> dict[str, Any]:
        """The message as chat templates and servers take it: absent parts left out, JSON text parsed."""
        turn: dict[str, Any] = self.parts
        return turn if self.tool_calls is None else {**turn, "tool_calls": json.loads(self.tool_calls)}


@dataclass(frozen=True, slots=True)
class Prompt:
    """Chat messages, and the reference that verifiers need to judge an answer to them.

    `prompt_id` is the hash of messages, tools, template arguments and reference (thresher.ids). `reference` is any JSON value;
    None if the prompt has no reference. `metadata` belongs to the user and is stored unchanged. `tools` are the JSON Schemas of
    the tools that the model may call, and `template` the further arguments of the chat template; both as JSON text, None if
    there are none.
    """

    prompt_id: str
    family: str
    messages: tuple[Message, ...]
    reference: Any = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    tools: str | None = None
    template: str | None = None


@dataclass(frozen=True, slots=True)
class Sample:
    """One completion of one prompt, as a filter sees it.

    `completion` is the text that the filter reads: the answer, without the model's reasoning, unless `reads` of the filter says
    otherwise. `reasoning` is the text inside the model's thinking marks, None if there are none. `tool_calls` are the parsed
    calls, a list of {name, arguments}, None if the answer has none.

    `index` counts the samples of a prompt from 0; the anchor (greedy completion) has index -1. `finish_reason` is `stop`,
    `length`, `tool_calls`, `repetition`, `content_filter` or `abort`, and None for imported samples that have none.
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
    reasoning: str | None = None
    tool_calls: Any = None


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

    @classmethod
    def broken(cls, reason: str, **detail: Any) -> "Verdict":
        """The verdict of a filter that could not judge because something other than the sample was broken, such as a process or
        a server: the next run asks for it again."""
        return cls(Outcome.UNDECIDED, reason, None, {**detail, "broken": True})


FILTER_ERROR = "filter_error"
"""Reason of a filter that itself failed: always broken."""
CLASSES = ("pass", "fail", "unparsed", "unverifiable", "timeout", "crash", "verifier_error", "tampering")
"""Classes of a verifier's verdicts. Only pass and fail are evidence; each of the others has a rate of its own."""


def verdict_class(outcome: str, reason: str) -> str:
    """The class of a verdict. A sample that cannot be judged for lack of a reference is unverifiable."""
    if outcome != Outcome.UNDECIDED.value:
        return "pass" if outcome == Outcome.KEEP.value else "fail"
    if reason == FILTER_ERROR:
        return "verifier_error"
    return reason if reason in CLASSES[2:] else "unverifiable"


_encode = json.JSONEncoder(sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode


def to_json(value: Any) -> str:
    """The canonical JSON text of a value: sorted keys, no spaces, no NaN. Raises ValueError or TypeError if it has none."""
    return _encode(value)


MESSAGE_PARTS = ("role", "content", "reasoning_content", "tool_calls", "tool_call_id", "name")
"""Parts of a message; all but the first two may be absent."""
MESSAGE = pa.struct([pa.field(name, pa.string(), nullable=number > 1) for number, name in enumerate(MESSAGE_PARTS)])
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
        pa.field("tools", pa.string()),
        pa.field("template", pa.string()),
    ],
    metadata={"thresher": f"prompts/{POOL_VERSION}"},
)
"""The prompts of a run: one row per prompt, one row group per shard. `reference`, `metadata`, `tools` and `template` (arguments
of the chat template) are JSON text."""

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
        pa.field("tools", pa.string()),
        pa.field("template", pa.string()),
        pa.field("completion", pa.string(), nullable=False),
        pa.field("reasoning", pa.string()),
        pa.field("answer", pa.string()),
        pa.field("tool_calls", pa.string()),
        pa.field("reasoning_tokens", pa.int32()),
        pa.field("parsed_by", pa.string()),
        pa.field("finish_reason", pa.string()),
        pa.field("stop_reason", pa.string()),
        pa.field("prompt_ids", TOKENS),
        pa.field("completion_ids", TOKENS),
        pa.field("logprobs", LOGPROBS),
        pa.field("top_ids", TOKENS),
        pa.field("top_logprobs", LOGPROBS),
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
        pa.field("adapter", pa.string()),
        pa.field("chat_template_sha256", pa.string()),
        pa.field("source_row", pa.int64()),
        pa.field("unreadable", pa.string()),
        pa.field("error", pa.string()),
    ],
    metadata={"thresher": f"samples/{POOL_VERSION}"},
)
"""The pool: one row per sample. `completion` is the text of the sampled tokens; `reasoning`, `answer` and `tool_calls` (JSON
text) are that text taken apart. `answer` is null if the completion ended inside its reasoning. `reasoning_tokens` counts the
tokens up to the end of the reasoning. `parsed_by` tells who took it apart: `marks` (thresher, by the model's thinking marks),
`server` or `messages` (they came apart, so that `completion` is joined from them and not exactly the text of `completion_ids`),
or the names of parsers of vLLM, joined by `+`; null if there was nothing to take apart. `top_ids` and `top_logprobs` hold the k
likeliest tokens of each position, if they are kept: T lists of k, one after the other, each in order of rank (equally likely ones
by id). They are flat so that one schema serves every k, which is their length / T. `source_row` and `unreadable` are for imported
samples (row number from 0 in the user's file, and why the row could not be read). `error` is why the engine could not draw a
sample; such a sample is not judged."""

REPEATED = ("family", "messages", "reference", "metadata", "tools", "template")
"""Columns that a sample shares with its prompt."""

JOURNAL = pa.schema(
    [
        *(f for f in SAMPLES if f.name not in REPEATED),
        pa.field("calibrated_tokens", pa.int64()),
        pa.field("calibration", pa.list_(pa.field("element", pa.float64(), nullable=False))),
        pa.field("masked_tokens", pa.int64()),
    ],
    metadata={"thresher": f"journal/{POOL_VERSION}"},
)
"""Rows of an unfinished shard: its samples without the columns of their prompt. The first row of a calibrated group has the
tokens and sums of thresher.estimators.calibration for the whole group, and how many of its tokens were left out because the
recipe lets the engine force them."""

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
