"""How long a running engine has had requests and made no token.

An engine whose step never returns raises no error and closes no connection, so its process looks alive. Its front end is asked
for whole groups and shows nothing until a request ends. But it keeps the tokens of each request as they arrive: counting them
once a second costs nothing per token, and vLLM's statistics, which cost time at each token, stay off.
"""

from collections.abc import Hashable, Mapping
from typing import Any

from thresher.errors import EngineError

LONGEST_LOOK_S = 5.0
"""Most seconds that one look counts: while this process is stopped or its loop is blocked, nobody reads the engine's tokens."""

Requests = Mapping[str, int]
"""The tokens made so far, by request."""


class StalledError(EngineError):
    """An engine has requests and makes no token."""


class TokenWatch:
    """Counts the silence of each rank of an engine: its data-parallel copies work independently of each other."""

    def __init__(self) -> None:
        self._looked_at: float | None = None
        self._silent_s: dict[Hashable, float] = {}
        self._made: dict[Hashable, dict[str, int]] = {}

    def look(self, ranks: Mapping[Hashable, Requests], now: float) -> tuple[float, int]:
        """Return the silence of the most silent rank in seconds and its number of requests, given the requests of each rank that
        has any. A request that is new, or is cancelled before its first token, is no progress."""
        step_s = 0.0 if self._looked_at is None else min(now - self._looked_at, LONGEST_LOOK_S)
        self._looked_at = now
        made = {rank: {name: tokens for name, tokens in requests.items() if tokens} for rank, requests in ranks.items()}
        self._silent_s = {
            rank: self._silent_s[rank] + step_s if self._made.get(rank) == tokens else 0.0 for rank, tokens in made.items()
        }
        self._made = made
        if not ranks:
            return 0.0, 0
        most_silent = max(ranks, key=lambda rank: self._silent_s[rank])
        return self._silent_s[most_silent], len(ranks[most_silent])


def requests_of(engine: Any) -> dict[Hashable, dict[str, int]]:
    """Return the tokens of each unfinished request of vLLM's AsyncLLM, by the rank that has it. Runs on the engine's loop."""
    rank_of = getattr(engine.engine_core, "reqs_in_flight", {})  # only a client of several ranks has it
    ranks: dict[Hashable, dict[str, int]] = {}
    for name, state in engine.output_processor.request_states.items():
        tokens = 0 if state.detokenizer is None else state.detokenizer.num_output_tokens()
        ranks.setdefault(rank_of.get(name), {})[name] = tokens
    return ranks


def stalled(seconds: float, requests: int) -> str:
    """Return what was seen of an engine or a server that makes no token."""
    return f"no token for {seconds:.{0 if seconds >= 10 else 1}f} s with {requests} request{'' if requests == 1 else 's'}"
