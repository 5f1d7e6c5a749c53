"""Whether a server works, by the counters that it publishes.

An answer is whole or absent, so a request of hours shows nothing until it ends. vLLM writes counters of the tokens that it makes
and reads after each step of its engine. While a step does not return they stand still, whatever else the server answers.
"""

import re
from collections.abc import Sequence


def read_counters(page: bytes, names: Sequence[str]) -> tuple[float, ...] | None:
    """Return the sum of each metric over its labels, from a page in Prometheus's text format; None without the first of them, or
    with a value that is no number."""
    found = re.findall(rb"^(" + "|".join(names).encode() + rb")(?:\{[^\n]*\})?[ \t]+([0-9.eE+-]+)", page, re.MULTILINE)
    sums = dict.fromkeys(names, 0.0)
    try:
        for name, value in found:
            sums[name.decode()] += float(value)
    except ValueError:
        return None
    return tuple(sums.values()) if any(name.decode() == names[0] for name, _ in found) else None


class WorkCounters:
    """The counters of one server, and when they last moved. Times are those of time.monotonic()."""

    def __init__(self) -> None:
        self.moved_at, self.looked_at = 0.0, 0.0
        self.received = 0
        """Tokens of the server's answers."""
        self.believed = False
        """Whether they tell if the server works. The first, that of the tokens made, must count at least the tokens of the
        answers: an address of several servers, or a gateway, may show the counters of another engine."""
        self._last: tuple[float, ...] | None = None
        self._offset = 0.0

    def look(self, values: tuple[float, ...] | None, received: int, now: float) -> None:
        """Take note of their values, None if the server has none; `received` is that of the time at which it was asked."""
        self.looked_at = now
        if values is not None and (self._last is None or values[0] < self._last[0]):  # the first look, or the server's restart
            self._offset = received - values[0]
        if values != self._last:
            self.moved_at = now
        self._last = values
        self.believed = values is not None and values[0] + self._offset >= received
