"""Merges a generated card into the README.md of a repository, so that what a person wrote stays.

    ---                     keys of a person and of thresher                               (thresher.releases.front_matter)
    text of a person
    BEGIN                   the generated part; text that a person wrote into it is moved below its end
    <!-- thresher: card HASH -->
    END
    text of a person

The generated card is kept in the repository as `thresher/card.md`; the hash in a README.md names the one that it was made from.
What differs from that one was written by a person.
"""

import difflib
import hashlib
import re
from collections.abc import Iterable
from itertools import islice

from thresher.errors import PublishError
from thresher.releases import front_matter
from thresher.releases.front_matter import joined, taken_apart

README, CARD = "README.md", "thresher/card.md"
BEGIN, END = "<!-- thresher: written anew with every release -->", "<!-- thresher: end; what stands below is yours -->"
_ID = re.compile(r"<!-- thresher: card ([0-9a-f]{16}) -->\r?\n?")
CARDS = 20
"""Most generated cards among which that of a card is looked for."""
_DERIVED = 0.5
"""Share of the lines of a generated card from which a text without marks is taken for that card."""


def merge(generated: str, old: str | None, last: str | None, *, name: str = README) -> str:
    """Return a generated card with what a person wrote into the `old` one; `last` is the generated card that the old one was
    made from, None if that is unknown. Raises PublishError, with the `name` of the card, on one that cannot be merged."""
    card, present = taken_apart(generated), taken_apart(old or "", name)
    above, below = _persons(present.body, None if last is None else taken_apart(last).body, card.body)
    known = front_matter.own(present.matter) if _marked(present.body) else {}
    if last is not None:
        known = taken_apart(last).matter
    matter = front_matter.merged(card.matter, present.matter, known, name)
    return joined(matter, f"{above}{card.body}{below}", present)


def with_id(body: str, rest: str) -> str:
    """Put the marks around the body of a generated card; its hash covers also the `rest` of the card."""
    digest = hashlib.sha256(f"{rest}{body}".encode()).hexdigest()[:16]
    return f"{BEGIN}\n<!-- thresher: card {digest} -->\n{body}\n\n{END}\n"


def card_id(text: str) -> str | None:
    """Return the hash of the generated card that a card was made from."""
    found = _ID.search(text)
    return found[1] if found else None


def origin(old: str | None, cards: Iterable[str]) -> str | None:
    """Return the one of the generated `cards`, the newest first, that a card was made from; None if it was made from none."""
    if old is None:
        return None
    wanted, newest = card_id(old), None
    for card in islice(cards, CARDS):
        newest = card if newest is None else newest
        if wanted is None or card_id(card) == wanted:
            newest = card
            break
    if newest is None or wanted is not None or _marked(old):
        return newest
    return newest if _derived(old, newest) else None


def own_part(text: str) -> str:
    """Return what thresher wrote of a card that was kept without its generated one."""
    card = taken_apart(text)
    return joined(front_matter.own(card.matter), f"{BEGIN}\n{generated_part(card.body).strip()}\n\n{END}\n")


def generated_part(body: str) -> str:
    """Return the text between the marks, without the hash; the whole body if it has none."""
    _, middle, _ = _parts(body)
    return _ID.sub("", middle)


def decoded(data: bytes, name: str) -> str:
    """Return the text of a card. Raises PublishError if it is not UTF-8."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise PublishError(f"{name}: is not UTF-8 text ({error}); save it as UTF-8, and run the command again") from error


# -- inside --------------------------------------------------------------------------------------------------------------


def is_cut(body: str) -> bool:
    """Whether the generated part of a card has lost its end."""
    return BEGIN in body and END not in body


def _marked(body: str) -> bool:
    return BEGIN in body or END in body


def _parts(body: str) -> tuple[str, str, str]:
    """The text above, between and below the marks; without a mark, that side is empty."""
    begin = body.find(BEGIN)
    start = begin + len(BEGIN) if begin >= 0 else 0
    end = body.find(END, start)
    above = body[:begin] if begin >= 0 else ""
    return (above, body[start:], "") if end < 0 else (above, body[start:end], body[end + len(END) :])


def _persons(body: str, last: str | None, generated: str) -> tuple[str, str]:
    """A person's text above and below the generated part."""
    above, _, below = _parts(body)
    middle = generated_part(body)
    if last is None and not _marked(body):
        inserted = [(1, middle)]
    elif last is None and END in body:  # made by a version that kept no generated card
        inserted = []
    else:
        inserted = _inserted(middle, generated_part(generated if last is None else last))
    if BEGIN not in body and inserted and not inserted[0][0]:
        above = inserted.pop(0)[1]
    below = "\n\n".join(text for text in (*(text.strip("\r\n") for _, text in inserted), below.lstrip("\r\n")) if text.strip())
    return _ended(above) if above.strip() else "", _ended(below) if inserted else below


def _ended(text: str) -> str:
    return text if not text or text.endswith("\n") else f"{text}\n"


def _inserted(text: str, last: str) -> list[tuple[int, str]]:
    """The pieces of a text that `last` lacks, each with the number of lines of `last` before it; none where only its end is
    missing."""
    if last.startswith(text):
        return []
    lines, before = text.splitlines(keepends=True), [line.rstrip() for line in last.splitlines()]
    bare = [line.rstrip() for line in lines]
    shorter, start, cut = min(len(bare), len(before)), 0, 0
    while start < shorter and bare[start] == before[start]:
        start += 1
    while cut < shorter - start and bare[-1 - cut] == before[-1 - cut]:
        cut += 1
    matcher = difflib.SequenceMatcher(None, before[start : len(before) - cut], bare[start : len(bare) - cut], autojunk=False)
    first = next((number for number, line in enumerate(before) if line), 0)
    pieces = [
        (max(0, start + low - first), "".join(lines[start + begin : start + end]))
        for kind, low, _, begin, end in matcher.get_opcodes()
        if kind in ("insert", "replace")
    ]
    return [(number, piece) for number, piece in pieces if piece.strip()]


def _derived(old: str, card: str) -> bool:
    """Whether a text without marks holds most lines of a generated card."""
    lines = {line.strip() for line in generated_part(taken_apart(card).body).splitlines()} - {""}
    return len(lines & {line.strip() for line in old.splitlines()}) >= _DERIVED * len(lines)
