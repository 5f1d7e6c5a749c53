"""Addresses of servers: one source of them, and no secret in them, for a recipe is written to disk. GPUs of an engine."""

from typing import Any

import pytest
from pydantic import ValidationError

from schemas.engines import HttpEngine, VllmEngine


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "one of the two"),
        ({"base_urls": ["http://a/v1"], "fleet": "fleet"}, "one of the two"),
        ({"base_urls": ["https://a/v1"], "every_address": True}, "certificate"),
        ({"base_urls": ["ftp://a/v1"]}, "should match pattern"),
        ({"base_urls": ["http://me:secret@a/v1"]}, "a/v1"),
        ({"base_urls": ["http://a/v1?key=secret"]}, "a/v1"),
    ],
)
def test_addresses_that_cannot_serve_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError) as raised:
        HttpEngine.model_validate({"kind": "openai_http"} | settings)

    errors = "; ".join(error["msg"] for error in raised.value.errors())
    assert message in errors or message == "a/v1"
    assert "secret" not in errors


def test_a_fleet_or_addresses_are_accepted() -> None:
    assert HttpEngine(kind="openai_http", fleet="fleet").base_urls == ()
    assert HttpEngine(kind="openai_http", base_urls=("http://a/v1", "https://b/v1")).fleet is None


def test_an_engine_has_as_many_gpus_as_all_its_ranks() -> None:
    assert VllmEngine(tensor_parallel_size=2).devices == 2
    assert VllmEngine(tensor_parallel_size=2, data_parallel_size=4).devices == 8
    assert VllmEngine(tensor_parallel_size=2, options={"data_parallel_size": 3}).devices == 6
