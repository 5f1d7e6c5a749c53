"""Small changes of a prompt that keep its meaning: white space, wording, the order of the worked examples."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from schemas.sample import Message, Prompt
from thresher import ids
from thresher.errors import ThresherError

Turns = tuple[Message, ...]

WORDINGS = ("Please help me with this. {}", "{} Thank you.", "Here is my request: {}")
"""Put round every user's turn, worked examples too, so that the examples show what is meant."""

WHITESPACE: dict[str, Callable[[str], str]] = {
    "newline_after": lambda text: f"{text}\n",
    "space_before": lambda text: f" {text}",
    "spaces_after": lambda text: f"{text}  ",
}
"""Done to the last user's turn."""


def variants(prompt: Prompt, wordings: Sequence[str] = WORDINGS) -> Iterator[tuple[str, Prompt]]:
    """Yield (name, changed prompt): `whitespace: ...`, `wording: ...`, and, where there are two worked examples or more, `order:
    reversed` and (from three on) `order: rotated`. Family and reference stay; a change that changes nothing is left out."""
    for name, messages in _changed(prompt.messages, wordings):
        if messages != prompt.messages:
            yield name, replace(prompt, prompt_id=ids.prompt_id(messages, prompt.reference), messages=messages)


def checked_wordings(given: Sequence[str]) -> tuple[str, ...]:
    """The wordings of a command line. Raises ThresherError for one without the place of the text."""
    for one in given:
        if one.count("{}") != 1:
            raise ThresherError(f"--wording {one!r}: wanted one {{}}, where the user's text goes, as in 'Please: {{}}'")
    return tuple(given) or WORDINGS


def _changed(messages: Turns, wordings: Sequence[str]) -> Iterator[tuple[str, Turns]]:
    last = messages[-1]
    for name, change in WHITESPACE.items():
        yield f"whitespace: {name}", (*messages[:-1], Message(last.role, change(last.content)))
    for wording in wordings:
        yield (
            f"wording: {wording}",
            tuple(Message(one.role, wording.replace("{}", one.content)) if one.role == "user" else one for one in messages),
        )
    first = list(itertools.takewhile(lambda one: one.role == "system", messages))
    shots = messages[len(first) : -1]
    pairs = [shots[at : at + 2] for at in range(0, len(shots), 2)]
    if len(pairs) > 1 and all([one.role for one in pair] == ["user", "assistant"] for pair in pairs):
        yield "order: reversed", (*first, *itertools.chain.from_iterable(pairs[::-1]), last)
        if len(pairs) > 2:
            yield "order: rotated", (*first, *itertools.chain.from_iterable([*pairs[1:], pairs[0]]), last)
