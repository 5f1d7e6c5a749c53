"""Texts, names and settings without servers and directories."""

import json

import pytest

from thresher.disclosure import (
    ADDRESS,
    LEFT_OUT,
    public_detail,
    public_name,
    public_settings,
    public_source,
    public_text,
    servers_among,
)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("GET http://10.0.0.1:8000/v1/models: status 500", "GET [address] status 500"),
        ("10.0.0.1:8000 [fe80::1]:80, localhost:8000, node-7.lan:8000", "[address] [address], [address], [address]"),
        ("see /home/me/runs/x.json, ~/a/b and ~me/c/d", "see x.json, b and d"),
        ("</think> 1/2/3 km/h /no_think and/or a:1 at 12:30", "</think> 1/2/3 km/h /no_think and/or a:1 at 12:30"),
        ("pass rate 45.5 % [12.3, 45.6], version 1.2.3", "pass rate 45.5 % [12.3, 45.6], version 1.2.3"),
    ],
)  # fmt: skip
def test_addresses_and_folders_are_left_out_of_a_text(text: str, shown: str) -> None:
    assert public_text(text) == shown


def test_a_detail_stays_json_and_answers_stay_as_they_are() -> None:
    """Escapes of JSON stand beside addresses; a host without dots is known by name only; `found` is what a model wrote."""
    detail = json.dumps({
        "error": '"http://gpu:8000" \n/home/jane/proj/x.py\nhttp://h:1/a and gpu17:8000 at solution.py:123',
        "found": "10.0.0.1",
        "list": [1, "localhost:80", 12345678901234567890123],
    })  # fmt: skip

    shown = json.loads(public_detail(detail, servers_among(["gpu17:8000", "1.1", None])))

    assert shown == {
        "error": '"[address]" \nx.py\n[address] and [address] at solution.py:123',
        "found": "10.0.0.1",
        "list": [1, "[address]", 12345678901234567890123],
    }
    assert public_detail('{"error": "a  b"}') == '{"error": "a  b"}'


def test_a_name_of_the_hub_stays_and_a_path_becomes_its_last_part() -> None:
    names = ("org/model", "/home/me/model", "~/model/", "../me/model", "filters.mine:build")

    assert [public_name(name) for name in names] == ["org/model", "model", "model", "model", "filters.mine:build"]
    assert [public_source(source) for source in ("host:8000", "1.1", "table")] == ["server", "1.1", "table"]


def test_settings_keep_what_decides_a_sample_and_no_texts_are_changed() -> None:
    settings = {
        "engine": {
            "base_urls": ["http://h:1/v1"],
            "extra_body": {"a": 1},
            "fleet": None,
            "options": {"x": "/a/b", "data_parallel_address": "10.2.3.4", "y": "a/../../jane/x", "seed": 1},
        },
        "executor": {"address": "auto"},
        "prompts": [{"template": "/home/{{ x }}", "source": {"path": "/home/me/p.jsonl"}}],
        "sampling": {"stop": ["/end/now"], "temperature": 1.0},
    }

    assert public_settings(settings) == {
        "engine": {
            "base_urls": LEFT_OUT,
            "extra_body": LEFT_OUT,
            "fleet": None,
            "options": {"x": "b", "data_parallel_address": ADDRESS, "y": "x", "seed": 1},
        },
        "executor": {"address": "auto"},
        "prompts": [{"template": "/home/{{ x }}", "source": {"path": "p.jsonl"}}],
        "sampling": {"stop": ["/end/now"], "temperature": 1.0},
    }
