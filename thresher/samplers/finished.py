"""Passes the finished groups of a stream from the thread of the engine to the thread that waits for them."""

import queue
from contextlib import suppress

from thresher.errors import ThresherError
from thresher.samplers.sampler import Drawn


class FinishedGroups:
    """A queue of finished groups, ended by an error."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[Drawn | ThresherError] = queue.SimpleQueue()

    def put(self, result: Drawn | ThresherError) -> None:
        """Add a finished group, or the error that ends the stream."""
        self._queue.put(result)

    def take(self, timeout: float) -> list[Drawn]:
        """Return all groups in the queue; wait up to `timeout` seconds for the first.

        Raises the error once all groups before it have been returned, and again on every later call."""
        drawn: list[Drawn] = []
        with suppress(queue.Empty):
            while True:
                result = self._queue.get(timeout=0 if drawn else timeout)
                if isinstance(result, Drawn):
                    drawn.append(result)
                    continue
                self._queue.put(result)
                if drawn:
                    break
                raise type(result)(*result.args) from result  # several streams may share this error: each raises its own
        return drawn
