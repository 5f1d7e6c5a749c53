"""The hint of an error message about a name that does not exist: the closest name that does."""

import difflib
from collections.abc import Iterable


def did_you_mean(name: object, valid: Iterable[str], *, cutoff: float = 0.6) -> str:
    """Return `; did you mean X?` for the closest of the `valid` names, or "" where none is close.

    `cutoff` is the least similarity from 0 to 1; at 0 the closest name is always offered.
    """
    close = difflib.get_close_matches(str(name), list(valid), n=1, cutoff=cutoff)
    return f"; did you mean {close[0]}?" if close else ""
