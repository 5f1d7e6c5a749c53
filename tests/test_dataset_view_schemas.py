"""The JSON schemas of views."""

import json
from pathlib import Path


def test_committed_shapes_are_those_of_the_views() -> None:
    shape = json.loads((Path(__file__).parents[1] / "schemas/views/rollouts.schema.json").read_text())
    assert shape["properties"]["kind"]["anyOf"][0]["enum"] == ["hit", "near_miss", "miss", "duplicate"]
    assert shape["properties"]["sample_id"] == {
        "description": "hash that identifies the sample",
        "type": "string",
        "minLength": 1,
    }
