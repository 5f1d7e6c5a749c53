"""What a server says of its model, and whether that is still the model which earlier samples were drawn from.

A server may be started again with another model under the same name, and nothing in its answers would show it.
"""

from collections.abc import Callable, Mapping
from typing import Any

from schemas.manifest import ServerClaims
from thresher.errors import EngineError

Note = Callable[[str, ServerClaims], list[str]]
"""Compares what a server, by its `source`, says with what it said before, and notes it. Returns what may not differ, in words:
empty if it is the same model. Called in a thread."""

MUST_AGREE = ("root", "parent", "owned_by", "weight_version")
"""Claims that identify the model. A claim that a server no longer makes, or did not make before, is no contradiction."""


class ChangedServerError(EngineError):
    """A server says something else of the model than it did when earlier samples were drawn."""


def read_claims(card: Mapping[str, Any], version: str, weight_version: Any) -> ServerClaims:
    """The claims in a model's card (GET /v1/models), with the server's version."""
    texts = {name: str(card[name]) for name in ("root", "parent", "owned_by") if isinstance(card.get(name), str) and card[name]}
    length = card.get("max_model_len")
    return ServerClaims(
        model=str(card["id"]),
        **texts,
        max_model_len=length if isinstance(length, int) else None,
        weight_version=None if weight_version is None else str(weight_version),
        versions=(version,) if version else (),
    )


def contradictions(before: ServerClaims, now: ServerClaims) -> list[str]:
    """What a server may not change, in words. A shorter context is among it: prompts that fitted no longer would."""
    pairs = [(name, getattr(before, name), getattr(now, name)) for name in MUST_AGREE]
    differing = [(name, was, is_) for name, was, is_ in pairs if None not in (was, is_) and was != is_]
    if before.max_model_len and now.max_model_len and now.max_model_len < before.max_model_len:
        differing.append(("max_model_len", before.max_model_len, now.max_model_len))
    return [f"{name} was {was} and is now {is_}" for name, was, is_ in differing]


def together(before: ServerClaims, now: ServerClaims) -> ServerClaims:
    """What is noted of a server that says both: the later claims, what only the earlier had, and every version in its order."""
    claims = before.model_dump() | {name: value for name, value in now.model_dump().items() if value is not None}
    versions = before.versions + tuple(version for version in now.versions if version not in before.versions[-1:])
    return ServerClaims.model_validate(claims | {"versions": versions})


class Remembered:
    """A `Note` in memory, for samplers that belong to no run."""

    def __init__(self) -> None:
        self._claims: dict[str, ServerClaims] = {}

    def __call__(self, source: str, now: ServerClaims) -> list[str]:
        before = self._claims.get(source)
        if before is not None and (differing := contradictions(before, now)):
            return differing
        self._claims[source] = now if before is None else together(before, now)
        return []
