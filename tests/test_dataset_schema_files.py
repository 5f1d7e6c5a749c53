"""The committed JSON schemas are those of the models."""

from thresher.dataset import schema_files


def test_the_committed_schemas_are_what_the_models_say() -> None:
    """`make schemas` writes them."""
    assert schema_files.stale() == []
