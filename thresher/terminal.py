"""The one outlet to a terminal: no prompt, sample, name, reason or error of a server acts on it, whatever it is made of."""

TYPE_CHECKING = False  # typing itself is not imported: it takes milliseconds of every command
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import IO, Any

    from rich.console import Console
    from rich.segment import Segment

_SPACES = frozenset("\n\t\u00a0\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f\u3000")


def visible(text: str) -> str:
    """Return the text with the characters as escapes that act on a terminal or cannot be seen: control characters, marks of
    direction, halves of surrogate pairs. Line ends, tabs and spaces of any width stay."""
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() or character in _SPACES else character.encode("unicode_escape").decode()
        for character in text
    )


def open_console(file: "IO[str] | None" = None) -> "Console":
    """Return a console on a file, standard output without one, on which no text acts, whatever it is made of."""
    from rich.console import Console
    from rich.segment import Segment

    class Shown(Console):
        def render(self, *arguments: "Any", **named: "Any") -> "Iterable[Segment]":
            for part in super().render(*arguments, **named):
                yield part if part.control else Segment(visible(part.text), part.style)

    return Shown(file=file, emoji=False)
