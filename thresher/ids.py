"""Ids and seeds, computed from content: a prompt has the same id in every run, and no sample is identified by its position.

An id is the first 128 bits of a SHA-256 hash, in hex. Two of 1e9 samples share an id with a probability below 2e-21.
"""

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any

from schemas.sample import Message, to_json


def digest(*parts: Any) -> str:
    """Hash JSON values to 32 hex characters."""
    return hashlib.sha256(to_json(parts).encode("utf-8", "surrogatepass")).hexdigest()[:32]


def prompt_id(messages: Sequence[Message], reference: Any, tools: str | None = None, template: str | None = None) -> str:
    """Hash the messages of a prompt, the reference answer, and the tools and template arguments (JSON text) to its id."""
    turns = [[part.role, part.content] if len(part.parts) == 2 else part.parts for part in messages]
    further = [tools, template] if tools is not None or template is not None else []
    return digest("prompt", turns, reference, *further)


def sample_ids(prompt: str, source: str, indices: Iterable[int]) -> list[str]:
    """Hash a prompt id, a source key and each index to a sample id.

    The ids are those of `digest("sample", prompt, source, index)`, with the part before the index hashed once.
    """
    prefix = hashlib.sha256(to_json(["sample", prompt, source])[:-1].encode())
    ids = []
    for index in indices:
        state = prefix.copy()
        state.update(b",%d]" % index)
        ids.append(state.hexdigest()[:32])
    return ids


def source_key(
    model: str,
    revision: str | None,
    sampling: dict[str, Any],
    salt: str,
    *,
    adapter: str | None = None,
    template: str | None = None,
) -> str:
    """Hash all that a sample depends on, except its prompt and its index. `sampling` includes the engine's settings, `template`
    is the hash of the model's chat template."""
    further = {name: value for name, value in (("adapter", adapter), ("template", template)) if value is not None}
    return digest("source", model, revision, sampling, salt, *([further] if further else []))


def sample_seed(sample: str) -> int:
    """Return the seed of a sample, from 0 to 2^62 - 1, computed from its id.

    Seeds are never consecutive numbers: vLLM gives the children of a request the seeds seed, seed + 1, ..., so requests with
    consecutive seeds would draw the same samples.
    """
    return int(sample[:16], 16) >> 2


def engine_seed(salt: str, start: int) -> int:
    """Return the seed of an engine, from 1 to 2^31 - 1, for the given start within a run.

    It differs between starts: with vLLM's default, 0, a restarted engine would draw the random numbers of its first start again.
    """
    return int(digest("engine", salt, start)[:8], 16) % (2**31 - 1) + 1
