"""Passwords in addresses."""

from collections.abc import Callable
from pathlib import Path

import pytest

from thresher import credentials
from thresher.errors import RecipeError, StoreError
from thresher.inputs import recipe_file
from thresher.pool.store import Store


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("s3://KEY:SEC/RET@bucket/run", "s3://[password]@bucket/run"),
        ("https://me:secret@host:8000/v1", "https://[password]@host:8000/v1"),
        ("https://:secret@host/v1", "https://[password]@host/v1"),
        ("s3://KEY:123/abc@bucket/run", "s3://[password]@bucket/run"),
        ("https://me:se@cret@host/v1", "https://[password]@host/v1"),
        ("postgresql+asyncpg://u:p%40@db:5432/prefect", "postgresql+asyncpg://[password]@db:5432/prefect"),
    ],
)
def test_a_password_is_found_and_hidden(address: str, shown: str) -> None:
    assert credentials.has_password(address)
    assert credentials.hidden(f"no answer from {address}: retried") == f"no answer from {shown}: retried"


@pytest.mark.parametrize(
    "address",
    [
        "hf://datasets/org/name@main/rows.parquet",
        "hdfs://name:8020/runs/a@b",
        "abfs://container@account.dfs.core.windows.net/run",
        "sftp://me@host/run",
        "http://127.0.0.1:8000/v1",
        "http://localhost:8000?x=a@b",
        "see https://me:secret@host",
        "data/runs/one",
    ],
)
def test_other_addresses_are_taken(address: str) -> None:
    assert not credentials.has_password(address)


@pytest.mark.parametrize(
    ("key", "address"),
    [
        ("publish.repo", "s3://KEY:hunter2@bucket/repo"),
        ("prompts.0.source.path", "https://KEY:hunter2@host/rows.jsonl"),
        ("dedupe.released", "{index: s3://KEY:hunter2@bucket/index}"),
        ("engine", "{kind: vllm, options: {hf_token: hunter2}}"),
        ("engine", "{kind: openai_http, base_urls: ['http://host/v1'], extra_body: {api_key: hunter2}}"),
        ("engine", "{kind: openai_http, base_urls: ['http://KEY:hunter2@host/v1']}"),
    ],
)
def test_a_recipe_with_a_password_or_a_key_is_refused_without_showing_it(
    recipe: Callable[..., Path], key: str, address: str
) -> None:
    with pytest.raises(RecipeError) as refused:
        recipe_file.load(recipe(), [f"{key}={address}"])
    assert "hunter2" not in str(refused.value)
    assert "user name" in str(refused.value) or "holds a key" in str(refused.value)


def test_a_run_directory_with_a_password_is_refused() -> None:
    with pytest.raises(StoreError, match=r"s3://\[password\]@bucket/run holds a user name and a password"):
        Store("s3://KEY:hunter2@bucket/run")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("OPENAI_API_KEY", "x"),
        ("HF_TOKEN", "abc"),
        ("AWS_SECRET_ACCESS_KEY", "abc"),
        ("AWS_ACCESS_KEY_ID", "abc"),
        ("DB_PASSWORD", "abc"),
        ("MYSECRET", "abc"),
        ("my_key", "abc"),
        ("NOTE", "hf_" + "a" * 34),
        ("NOTE", "sk-proj-" + "a" * 20),
        ("HEADERS", "Authorization: Bearer abcdefgh"),
        ("DATABASE", "postgresql://u:p@db:5432/x"),
        ("NOTE", "ghp_" + "a" * 36),
        ("PEM", "-----BEGIN RSA PRIVATE KEY-----"),
    ],
)
def test_a_variable_with_a_key_is_told_by_its_name_or_value(name: str, value: str) -> None:
    assert credentials.is_secret(name, value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("HF_HOME", "/shared/hub"),
        ("TOKENIZERS_PARALLELISM", "false"),
        ("MAX_TOKENS", "4096"),
        ("KEYBOARD", "de"),
        ("MONKEY", "yes"),
        ("HF_TOKEN", ""),
        ("HF_TOKEN_PATH", "/run/secrets/hf"),
        ("SSH_AUTH_SOCK", "/tmp/agent"),
        ("VLLM_USE_V1", "1"),
        ("OMP_NUM_THREADS", "8"),
        ("URL", "https://host:8000/v1"),
    ],
)
def test_other_variables_hold_no_key(name: str, value: str) -> None:
    assert not credentials.is_secret(name, value)
