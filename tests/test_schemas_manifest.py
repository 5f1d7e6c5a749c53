"""Entries of another version can be read; a run manifest is exact."""

import pytest
from pydantic import ValidationError

from schemas.manifest import Entry, RunManifest, seal, unseal
from schemas.recipe import Recipe
from schemas.sample import POOL_VERSION

ENTRY = {"path": "samples/00000.parquet", "rows": 1, "bytes": 2, "sha256": "a", "key": "k"}


def test_fields_that_another_version_wrote_into_an_entry_are_ignored() -> None:
    assert Entry.model_validate(ENTRY | {"written_by": "me"}) == Entry.model_validate(ENTRY)


def test_a_run_manifest_survives_json_with_its_recipe() -> None:
    recipe = Recipe.model_validate({"name": "small", "engine": {"kind": "replay", "path": "answers.jsonl"}})
    manifest = RunManifest(name="small", origin="sampled", sampling_key="k", recipe=recipe, model={}, thresher_version="0")

    assert manifest.pool_version == POOL_VERSION
    assert RunManifest.model_validate_json(manifest.model_dump_json()) == manifest
    with pytest.raises(ValidationError, match="Extra inputs"):
        RunManifest.model_validate(manifest.model_dump() | {"host": "here"})


def test_an_entry_that_is_not_what_was_written_is_told_from_one_of_an_earlier_version() -> None:
    entry = Entry.model_validate(ENTRY | {"facts": {"x": 0.1, "y": ["é", None]}})
    text = seal(entry).encode()

    assert unseal(Entry, text) == unseal(Entry, entry.model_dump_json().encode()) == entry
    for damaged in (text.replace(b'"rows": 1', b'"rows": 2'), text[:-20], b"", b"[]", b'"\xff"', b"[" * 100_000):
        with pytest.raises(ValueError, match=r"\w"):
            unseal(Entry, damaged)
