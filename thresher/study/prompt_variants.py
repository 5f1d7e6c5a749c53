"""Small changes of a prompt that keep its meaning: white space, wording, and the order of the worked examples."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from schemas.sample import Message, Prompt
from thresher import ids
from thresher.errors import ThresherError

Turns = tuple[Message, ...]

VARIANT = "thresher_variant"
"""Metadata key of a changed prompt: {"of": prompt_id of the original prompt, "name": name of the change}."""

WORDINGS = ("Please help me with this. {}", "{} Thank you.", "Here is my request: {}")
"""Put around every user turn, those of the worked examples too, so that the examples still show what is wanted."""

WHITESPACE: dict[str, Callable[[str], str]] = {
    "newline_after": lambda text: f"{text}\n",
    "space_before": lambda text: f" {text}",
    "spaces_after": lambda text: f"{text}  ",
}
"""Applied to the last user turn."""


def variants(prompt: Prompt, wordings: Sequence[str] = WORDINGS) -> Iterator[tuple[str, Prompt]]:
    """Yield (name, changed prompt): `whitespace: ...`, `wording: ...`, and, with at least two worked examples, `order: reversed`
    and (with at least three) `order: rotated`. Family and reference stay. A change without effect is left out."""
    for name, messages in _changed_messages(prompt.messages, wordings):
        if messages != prompt.messages:
            prompt_id = ids.prompt_id(messages, prompt.reference, prompt.tools, prompt.template)
            yield name, replace(prompt, prompt_id=prompt_id, messages=messages)


def checked_wordings(wordings: Sequence[str]) -> tuple[str, ...]:
    """Return the wordings of a command line, or WORDINGS where it has none. Raises ThresherError unless each contains {} once."""
    for wording in wordings:
        if wording.count("{}") != 1:
            raise ThresherError(f"--wording {wording!r}: wanted one {{}}, where the user's text goes, as in 'Please: {{}}'")
    return tuple(wordings) or WORDINGS


def _changed_messages(messages: Turns, wordings: Sequence[str]) -> Iterator[tuple[str, Turns]]:
    last = messages[-1]
    for name, change in WHITESPACE.items():
        yield f"whitespace: {name}", (*messages[:-1], replace(last, content=change(last.content)))
    for wording in wordings:
        yield f"wording: {wording}", tuple(_reworded(message, wording) for message in messages)
    system = list(itertools.takewhile(lambda message: message.role == "system", messages))
    examples = messages[len(system) : -1]
    pairs = [examples[start : start + 2] for start in range(0, len(examples), 2)]
    if len(pairs) > 1 and all([message.role for message in pair] == ["user", "assistant"] for pair in pairs):
        yield "order: reversed", (*system, *itertools.chain.from_iterable(pairs[::-1]), last)
        if len(pairs) > 2:
            yield "order: rotated", (*system, *itertools.chain.from_iterable([*pairs[1:], pairs[0]]), last)


def _reworded(message: Message, wording: str) -> Message:
    return replace(message, content=wording.replace("{}", message.content)) if message.role == "user" else message
