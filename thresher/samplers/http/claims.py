"""What a server says of its model, and whether that is still the model which earlier samples were drawn from.

A server may be started again with another model under the same name, and nothing in its answers would show it.
"""

from collections.abc import Callable, Mapping
from contextlib import suppress
from itertools import islice
from typing import Any
from urllib.parse import urlsplit

from schemas.manifest import ServerClaims
from schemas.suggest import did_you_mean
from thresher.errors import EngineError
from thresher.samplers.http.answers import ServerError, error_words
from thresher.samplers.http.connection import ApiKey, AttemptError, Connection
from thresher.samplers.http.refusals import BUSY, KEY_REFUSED

GREETING_S = 60.0
WITHOUT_LIST = "set engine.check to completion for a server without a list that names the model"

Note = Callable[[str, ServerClaims], list[str]]
"""Compares what a server, by its `source`, says with what it said before, and notes it. Returns what may not differ, in words:
empty if it is the same model. Called in a thread."""

MUST_AGREE = ("root", "parent", "owned_by", "weight_version")
"""Claims that identify the model. A claim that a server no longer makes, or did not make before, is no contradiction."""


_CONTEXTS = ("max_model_len", "context_length", "context_window", "max_context_length")
"""Names of a model's context in its card: vLLM and SGLang, OpenRouter and Together, Groq, Mistral."""
LONGEST = 200
"""Characters of a claim, or of the name of a model that is not asked for, that are kept."""
COMPARED = 1000
"""Most models of a list that are compared with one that it lacks."""


class ChangedServerError(EngineError):
    """A server says something else of the model than it did when earlier samples were drawn."""


def read_cards(body: Any) -> dict[str, Mapping[str, Any]]:
    """The models of GET /models by their ids, in the order of the list: OpenAI's `data`, or a bare list. Raises ServerError for
    an error, ValueError for anything else."""
    if isinstance(body, dict) and body.get("error"):
        raise ServerError(error_words(body))
    cards = body.get("data") if isinstance(body, dict) else body
    if not isinstance(cards, list) or not all(isinstance(card, dict) and isinstance(card.get("id"), str) for card in cards):
        raise ValueError("no list of models")
    return {card["id"]: card for card in cards}


def find_card(cards: Mapping[str, Mapping[str, Any]], model: str) -> Mapping[str, Any] | None:
    """The card of a model; its id may have a prefix `models/` (Gemini) or a tag `:latest` (Ollama) that the recipe does not
    have. None if it is not served."""
    return next((cards[name] for name in (model, f"models/{model}", f"{model}:latest") if name in cards), None)


def context_of(card: Mapping[str, Any]) -> int:
    """The most tokens of a prompt and its completion that a card names, 0 if it names none."""
    meta = card.get("meta")
    lengths = [*(card.get(name) for name in _CONTEXTS), meta.get("n_ctx") if isinstance(meta, dict) else None]  # llama.cpp
    return next((length for length in lengths if type(length) is int and length > 0), 0)


def read_claims(card: Mapping[str, Any], version: str, weight_version: Any) -> ServerClaims:
    """The claims in a model's card (GET /v1/models), with the server's version."""
    said = {name: card.get(name) for name in ("root", "parent", "owned_by")}
    texts = {name: value[:LONGEST] for name, value in said.items() if isinstance(value, str) and value}
    length = card.get("max_model_len")
    return ServerClaims(
        model=str(card["id"]),
        **texts,
        max_model_len=length if type(length) is int and length > 0 else None,
        weight_version=None if weight_version is None else str(weight_version)[:LONGEST],
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
    """What is noted of a server that says both: the later claims, what only the earlier had, every version in its order, and all
    fields that were ever left out."""
    claims = before.model_dump() | {name: value for name, value in now.model_dump().items() if value is not None}
    versions = before.versions + tuple(version for version in now.versions if version not in before.versions[-1:])
    left_out = tuple(sorted({*before.left_out, *now.left_out}))
    return ServerClaims.model_validate(claims | {"versions": versions, "left_out": left_out})


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


# -- asking a server -------------------------------------------------------------------------------------------------------


async def read_card(connection: Connection, url: str, model: str, key: ApiKey, *, again: bool) -> Mapping[str, Any]:
    """What GET /models says of a model. Raises EngineError if the server cannot be used, AttemptError if it may become usable;
    `again` tells that it was usable before, so that no list of models is a passing trouble."""
    response = await connection.get(f"{url}/models", GREETING_S)
    if response.status in KEY_REFUSED:
        raise key.refused(url, response.status)
    if response.status in BUSY or response.status >= 500:
        raise AttemptError("busy", f"status {response.status}")
    try:
        cards = read_cards(response.json())
    except (ValueError, ServerError) as error:
        found = f"status {response.status} and {key.hide(response.text)[:80]!r}"
        if again or (isinstance(error, ServerError) and response.status == 200):
            raise AttemptError("busy", f"GET /models: {found}", response.wait_s) from error
        raise EngineError(
            f"{url}/models: wanted a list of models, found {found}; engine.base_urls are the roots of the API, which mostly end "
            f"in /v1; {WITHOUT_LIST}"
        ) from error
    if (card := find_card(cards, model)) is None:
        names = [name[:LONGEST] for name in islice(cards, COMPARED)]
        hint = did_you_mean(model, names, cutoff=0.0)
        served = ", ".join(sorted(names)[:20]) or "nothing"
        raise EngineError(f"{url} does not serve {model}, only {served}{hint}; {WITHOUT_LIST}")
    return card


async def value_at(connection: Connection, url: str, place: tuple[str, str] | None) -> Any:
    """A value that a server tells: the path from its root, and the name in the JSON object there. None if there is none."""
    if place is None:
        return None
    parts = urlsplit(url)
    with suppress(AttemptError, ValueError, AttributeError):
        response = await connection.get(f"{parts.scheme}://{parts.netloc}{place[0]}", GREETING_S)
        return response.json().get(place[1]) if response.status == 200 else None
    return None
