"""Takes completions apart: what a model thought, and what it answered.

A completion that thinks has a pair of marks, such as `<think>` and `</think>`. What stands before the end mark is reasoning, what
stands after it is the answer. Some chat templates open the thinking in the prompt; then only the end mark is drawn. Marks that
are quoted, or that stand in a code block or in the middle of a line, are text.

Channels (gpt-oss, "harmony") name the purpose of each message: `analysis` is reasoning, `final` is the answer.

Columns go in and out. A batch without a mark costs one search; a completion with marks costs a few operations, however long it
is."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from schemas.sample import to_json

Pair = tuple[str, str]

USUAL_MARKS: tuple[Pair, ...] = (
    ("<think>", "</think>"),
    ("<thinking>", "</thinking>"),
    ("<thought>", "</thought>"),
    ("<reasoning>", "</reasoning>"),
    ("[THINK]", "[/THINK]"),
    ("<seed:think>", "</seed:think>"),
    ("<mm:think>", "</mm:think>"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("<|inner_prefix|>", "<|inner_suffix|>"),
    ("◁think▷", "◁/think▷"),
    ("<|think|>", "<|/think|>"),
    ("<longcat_think>", "</longcat_think>"),
)
"""Marks in common use, by which completions of an unknown model are taken apart."""
CHANNEL = "<|channel|>"
ENDS_OF_TURN = ("</s>", "<|im_end|>", "<|endoftext|>", "<|eot_id|>", "<|end_of_text|>", "<|return|>", "<|end|>", "<end_of_turn>",
                "<|END_RESPONSE|>", "<|END_OF_TURN_TOKEN|>", "<eos>", "[EOS]", "<EOS>", "<|eos|>", "<|eot|>", "<|eom|>",
                "<|eom_id|>", "<|EOT|>", "<EOT>", "<|end_of_turn|>", "<|endofturn|>", "<|end_of_sentence|>", "<|role_end|>",
                "<\uff5cend\u2581of\u2581sentence\uff5c>", "<pad>", "<|pad|>")  # fmt: skip
"""Marks that a model writes at the end of its turn; they are no part of an answer."""

_FENCE = re.compile(r"^ {0,3}(```+|~~~+)", re.MULTILINE)
_QUOTES = "`'\"\u201c\u2018\u00ab"
_MESSAGE = re.compile(
    r"(?:<\|start\|>(?P<role>[^<]*))?<\|channel\|>(?P<channel>\w+)(?P<to>[^<]*)(?:<\|constrain\|>[^<]*)?<\|message\|>"
    r"(?P<text>.*?)(?P<end><\|end\|>|<\|return\|>|<\|call\|>|(?=<\|start\|>)|\Z)",
    re.DOTALL,
)
_ADDRESSEE = re.compile(r"\bto=([^\s<]+)")


@dataclass(frozen=True)
class Marking:
    """How a model marks its thinking: by one of several pairs of marks, or by channels.

    `opened`: whether the template opens the thinking in the prompt, so that a completion without marks is all thinking; None if
    that is unknown, and a completion without marks is all answer. `parser`: the parser of vLLM that takes completions apart as
    they are drawn, instead of the pairs.
    """

    pairs: tuple[Pair, ...] = USUAL_MARKS
    channels: bool = True
    opened: bool | None = None
    parser: str | None = None


USUAL = Marking()
"""For completions of an unknown model."""


class TakenApart(NamedTuple):
    """n completions taken apart. `reasoning` is null where there is none. `answer` is null where the completion ended inside its
    reasoning. `ends` (n,) are the bytes of the completion up to the end of the reasoning, 0 where there is none."""

    reasoning: pa.Array | pa.ChunkedArray
    answer: pa.Array | pa.ChunkedArray
    ends: NDArray[np.int64]


def take_apart(
    completions: pa.Array | pa.ChunkedArray, marking: Marking | None = USUAL, opened: Sequence[bool | None] | None = None
) -> TakenApart:
    """Take completions apart. Without a marking the answer is the whole completion. `opened` tells for each completion whether
    its prompt ends inside opened marks; None where that is unknown, so that the marking's own `opened` counts. Chunks in give
    chunks out, since together they may have more text than one array holds."""
    if isinstance(completions, pa.ChunkedArray):
        return _chunks_apart(completions, marking, opened)
    whole = completions
    ends = np.zeros(len(whole), np.int64)
    if marking is None or not len(whole):
        return TakenApart(pa.nulls(len(whole), pa.string()), whole, ends)
    marked = pc.match_substring_regex(whole, _hint(marking)).to_numpy(zero_copy_only=False).astype(bool)
    inside = np.full(len(whole), bool(marking.opened))
    if opened is not None:
        inside = np.array([marking.opened if state is None else state for state in opened]).astype(bool)
    rows = np.flatnonzero(marked | inside)
    if not len(rows):
        return TakenApart(pa.nulls(len(whole), pa.string()), whole, ends)
    known = [None] * len(rows) if opened is None else [opened[row] for row in rows]
    parts = [
        _split(text, marking, marking.opened if state is None else state)
        for text, state in zip(whole.take(pa.array(rows)).to_pylist(), known, strict=True)
    ]
    ends[rows] = [part[2] for part in parts]
    reasoning = pa.array([part[0] for part in parts], pa.string())
    answer = pa.array([part[1] for part in parts], pa.string())
    if len(rows) == len(whole):
        return TakenApart(reasoning, answer, ends)
    mask = np.zeros(len(whole), bool)
    mask[rows] = True
    return TakenApart(
        pc.replace_with_mask(pa.nulls(len(whole), pa.string()), pa.array(mask), reasoning),
        pc.replace_with_mask(whole, pa.array(mask), answer),
        ends,
    )


def join(reasoning: str | None, answer: str | None, tool_calls: str | None = None, pair: Pair = USUAL_MARKS[0]) -> str:
    """The text of a completion that came apart: reasoning, answer and tool calls (JSON text of a list), with the marks that most
    templates write between them."""
    calls = [] if tool_calls is None else [f"<tool_call>\n{to_json(call)}\n</tool_call>" for call in json.loads(tool_calls)]
    text = "\n".join([*([answer] if answer else []), *calls])
    if reasoning is None:
        return text
    opened = f"{pair[0]}\n{reasoning}"
    return opened if answer is None and not calls else f"{opened}\n{pair[1]}\n\n{text}"


def channel_calls(text: str) -> list[tuple[str, str]]:
    """The tool calls of a completion in channels: the name of each tool, and its arguments as they were written."""
    calls = [(_addressee(message), message["text"]) for message in _MESSAGE.finditer(text)]
    return [(name.removeprefix("functions."), arguments) for name, arguments in calls if name]


def opens_thinking(prompt: str, marking: Marking) -> bool:
    """Whether the text of a prompt ends inside thinking marks that its template opened."""
    tail = prompt.rstrip()
    return any(tail.endswith(start) for start, _ in marking.pairs)


# -- inside --------------------------------------------------------------------------------------------------------------


def _chunks_apart(completions: pa.ChunkedArray, marking: Marking | None, opened: Sequence[bool | None] | None) -> TakenApart:
    parts, first = [], 0
    for chunk in completions.chunks:
        parts.append(take_apart(chunk, marking, None if opened is None else opened[first : first + len(chunk)]))
        first += len(chunk)
    return TakenApart(
        pa.chunked_array([part.reasoning for part in parts], pa.string()),
        pa.chunked_array([part.answer for part in parts], pa.string()),
        np.concatenate([np.zeros(0, np.int64), *(part.ends for part in parts)]),
    )


def _hint(marking: Marking) -> str:
    """A pattern that a completion with something to take apart matches."""
    parts = [re.escape(mark) for mark in [end for _, end in marking.pairs] + [CHANNEL] * marking.channels]
    if marking.pairs:
        parts.append(rf"\A\s*(?:{'|'.join(re.escape(start) for start, _ in marking.pairs)})")
    parts.append(rf"(?:{'|'.join(map(re.escape, ENDS_OF_TURN))})\s*\z")
    return "|".join(parts)


def _split(text: str, marking: Marking, opened: bool | None) -> tuple[str | None, str | None, int]:
    """Reasoning, answer, and the bytes up to the end of the reasoning."""
    if marking.channels and CHANNEL in text and _MESSAGE.match(text.lstrip()):
        return _split_channels(text)
    body = text.lstrip()
    for start, end in marking.pairs:
        leads = body.startswith(start)
        if not leads and end not in text:
            continue
        first = len(text) - len(body) + len(start) if leads else 0
        place = text.find(end, first) if leads or opened else _bare_end(text, start, end)
        if place >= 0:
            return text[first:place].strip(), _answer(text[place + len(end) :]), _bytes_of(text, place + len(end))
        if leads:
            return text[first:].strip(), None, _bytes_of(text, len(text))
    if opened:
        return text.strip(), None, _bytes_of(text, len(text))
    return None, without_end_of_turn(text), 0


def _bare_end(text: str, start: str, end: str) -> int:
    """Where an end mark stands that is no quotation: with its start mark at the beginning of a line before it, or with none. -1
    if there is no such mark."""
    place = text.find(end)
    while place >= 0:
        before = text[:place]
        if not _quoted(text, place, len(end)) and not _in_fence(before):
            opening = before.rfind(start)
            if opening < 0 or not before[before.rfind("\n", 0, opening) + 1 : opening].strip():
                return place
        place = text.find(end, place + len(end))
    return -1


def _quoted(text: str, place: int, length: int) -> bool:
    return place > 0 and text[place - 1] in _QUOTES and place + length < len(text)


def _in_fence(before: str) -> bool:
    """Whether a code block is open at the end of a text."""
    return len(_FENCE.findall(before)) % 2 == 1


def _split_channels(text: str) -> tuple[str | None, str | None, int]:
    reasoning: list[str] = []
    answer: str | None = None
    end = 0
    for message in _MESSAGE.finditer(text):
        if message["channel"] == "final":
            answer = message["text"]
        elif message["channel"] == "analysis":
            reasoning.append(message["text"])
            end = message.end()
        elif answer is None and not _addressee(message) and message["end"]:
            answer = message["text"]  # a preamble that the user sees
        elif _addressee(message):
            answer = answer or ""  # a tool call is an answer without text
    return "\n".join(reasoning) if reasoning else None, answer, _bytes_of(text, end)


def _addressee(message: re.Match[str]) -> str:
    """The tool that a message of a channel calls; empty if it calls none."""
    name = _ADDRESSEE.search(f"{message['role'] or ''} {message['to']}")
    return name[1] if name else ""


def _bytes_of(text: str, characters: int) -> int:
    """Bytes of the first characters of a text."""
    return characters if text.isascii() else len(text[:characters].encode())


def _answer(text: str) -> str:
    """What stands after the end mark, without the blank lines that templates put there and without marks of the end of the
    turn."""
    return without_end_of_turn(text.lstrip("\r\n"))


def without_end_of_turn(text: str) -> str:
    """A text without the marks at its end; unchanged, white space included, if there are none."""
    kept, rest = text, text.rstrip()
    while rest.endswith(ENDS_OF_TURN):
        mark = next(mark for mark in ENDS_OF_TURN if rest.endswith(mark))
        kept = rest = rest.removesuffix(mark).rstrip()
    return kept
