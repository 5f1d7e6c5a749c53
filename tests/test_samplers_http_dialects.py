"""How the dialect of a server is known. What each means is tested in test_samplers_http_servers.py, on a server of each."""

from typing import Any

import pytest

from thresher.samplers.http.dialects import (
    ANTHROPIC,
    AZURE,
    DIALECT_OF_HOST,
    DIALECT_OF_OWNER,
    DIALECTS,
    LLAMA_CPP,
    OLLAMA,
    OPENAI,
    OPENAI_LIKE,
    SGLANG,
    TGI,
    VLLM,
    VLLM_PLAIN,
    dialect_of,
)


@pytest.mark.parametrize(
    ("owner", "extensions", "dialect"),
    [
        ("vllm", "auto", VLLM),
        ("vllm", "none", VLLM_PLAIN),
        ("sglang", "auto", SGLANG),
        ("sglang", "none", SGLANG.fallback),
        ("llamacpp", "auto", LLAMA_CPP),
        ("library", "auto", OLLAMA),
        ("openai", "auto", OPENAI_LIKE),
        ("openai", "none", OPENAI_LIKE),
        ("openai", "vllm", VLLM),
        (None, "auto", OPENAI_LIKE),
        (["vllm"], "auto", OPENAI_LIKE),
    ],
)
def test_the_dialect_follows_from_the_owner_and_the_recipe(owner: object, extensions: Any, dialect: Any) -> None:
    assert dialect_of({"id": "small", "owned_by": owner}, "10.0.0.1", extensions) == dialect


def test_the_dialect_follows_from_the_host() -> None:
    hosts = ("api.openai.com", "mine.openai.azure.com", "api.anthropic.com", "xapi.openai.com", "api.openai.com.example")

    assert [dialect_of({}, host, "auto") for host in hosts] == [OPENAI, AZURE, ANTHROPIC, OPENAI_LIKE, OPENAI_LIKE]
    assert dialect_of({"id": "a", "owned_by": "a", "created": 0}, "", "auto") == TGI
    assert dialect_of({"id": "a", "owned_by": "a", "created": 7}, "", "auto") == OPENAI_LIKE


def test_every_dialect_can_be_known() -> None:
    known = [*DIALECT_OF_OWNER.values(), *DIALECT_OF_HOST.values(), TGI]

    assert all(dialect in known for dialect in DIALECTS.values())
    assert all(known_one in DIALECTS.values() for known_one in known)
