"""The hint of an error message about a name that does not exist: the closest name that does."""

import difflib
from collections.abc import Iterable


def did_you_mean(name: object, valid: Iterable[str], *, cutoff: float = 0.6, most: int = 1) -> str:
    """Return `; did you mean X?` for the closest of the `valid` names (`most` of them), or "" where none is close.

    `cutoff` is the least similarity from 0 to 1; at 0 the closest name is always offered.
    """
    close = difflib.get_close_matches(str(name), list(valid), n=most, cutoff=cutoff)
    return f"; did you mean {' or '.join(close)}?" if close else ""
