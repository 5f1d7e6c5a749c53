"""Ids and seeds, all made from content: the same prompt has one id in every run, and no sample is ever counted by position.

An id is the first 128 bits of a SHA-256 in hex; among 1e9 samples two collide with probability below 2e-21.
"""

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any

from schemas.sample import Message, to_json


def digest(*parts: Any) -> str:
    """Hash JSON values into 32 hex characters."""
    return hashlib.sha256(to_json(parts).encode("utf-8", "surrogatepass")).hexdigest()[:32]


def prompt_id(messages: Sequence[Message], reference: Any) -> str:
    """Identify a prompt by what is asked and what answer is wanted."""
    return digest("prompt", [[message.role, message.content] for message in messages], reference)


def sample_ids(prompt: str, source: str, indices: Iterable[int]) -> list[str]:
    """Identify samples of a prompt by their indices; `source` is the `source_key` of who draws them, and how."""
    begins = hashlib.sha256(to_json(["sample", prompt, source])[:-1].encode())
    found = []
    for index in indices:
        one = begins.copy()
        one.update(b",%d]" % index)
        found.append(one.hexdigest()[:32])
    return found


def source_key(model: str, revision: str | None, sampling: dict[str, Any], salt: str) -> str:
    """Hash of all but the prompt and the index that a sample depends on."""
    return digest("source", model, revision, sampling, salt)


def sample_seed(sample: str) -> int:
    """Seed of one sample, in 0 .. 2^62-1, from its id. Never counted up: vLLM seeds the children of a request seed, seed + 1,
    ..., so neighbouring seeds would share samples."""
    return int(sample[:16], 16) >> 2


def engine_seed(salt: str, start: int) -> int:
    """Seed of an engine, in 1 .. 2^31-1: another one for each salt and each start of an engine in a run.

    vLLM's own default is 0, with which a restarted engine would draw the noise of its first start again.
    """
    return int(digest("engine", salt, start)[:8], 16) % (2**31 - 1) + 1
