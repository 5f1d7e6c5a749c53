"""Ids and seeds, all made from content: the same prompt has one id in every run, and no sample is ever counted by position.

An id is the first 128 bits of a SHA-256 in hex; among 1e9 samples two collide with probability below 2e-21.
"""

import hashlib
from collections.abc import Sequence
from typing import Any

from schemas.sample import Message, to_json


def digest(*parts: Any) -> str:
    """Hash JSON values into 32 hex characters."""
    return hashlib.sha256(to_json(parts).encode("utf-8", "surrogatepass")).hexdigest()[:32]


def prompt_id(messages: Sequence[Message], reference: Any) -> str:
    """Identify a prompt by what is asked and what answer is wanted."""
    return digest("prompt", [[message.role, message.content] for message in messages], reference)


def sample_id(prompt: str, source: str, index: int) -> str:
    """Identify sample `index` of a prompt; `source` is the `source_key` of who draws it, and how."""
    return digest("sample", prompt, source, index)


def source_key(model: str, revision: str | None, sampling: dict[str, Any], salt: str) -> str:
    """Hash of all but the prompt and the index that a sample depends on."""
    return digest("source", model, revision, sampling, salt)


def engine_seed(salt: str, source: str, done: Sequence[str]) -> int:
    """Seed of an engine, in 1 .. 2^31-1: another one for each salt and for each set of shards already done.

    vLLM's own default is 0, with which a restarted engine would draw the noise of its first start again.
    """
    return int(digest("engine", salt, source, sorted(done))[:8], 16) % (2**31 - 1) + 1
