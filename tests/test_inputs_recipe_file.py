"""Recipes are read, overridden, and refused with the faulty line."""

import contextlib
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thresher.errors import RecipeError
from thresher.inputs import recipe_file

Write = Callable[..., Path]


def test_a_recipe_loads_into_a_frozen_model(recipe: Write) -> None:
    """What is not written has its default."""
    loaded = recipe_file.load(recipe())

    assert loaded.recipe.sampling.samples_per_prompt == 4
    assert loaded.recipe.sampling.temperature == 1.0
    with pytest.raises(ValueError, match="frozen"):
        loaded.recipe.name = "other"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: a\nsamplng: {}\n", r":2: samplng: no such key; did you mean sampling\?"),
        ("name: a\nsampling:\n  temprature: 1\n", r":3: sampling.temprature: no such key; did you mean temperature\?"),
        (
            "name: a\nsampling:\n  max_tokens: many\n",
            r':3: sampling.max_tokens: wanted a whole number \(at least 1\), found "many"',
        ),
        ("name: a\nsampling: {top_p: 1.5}\n", r":2: sampling.top_p: wanted number \(above 0, at most 1"),
        ("model: {}\n", r":1: the recipe lacks the key name"),
        ("name: a\nname: b\n", r":2: name: given twice"),
        ("name: [a\n", r"not valid YAML"),
        ("- name: a\n", r":1: wanted a mapping"),
        (
            "name: a\nprompts:\n  - family: x\n    source: {kind: josnl, path: p}\n",
            r":4: prompts\[0\].source.kind: .*did you mean jsonl",
        ),
        (
            "name: a\nprompts:\n  - family: x\n    source: {kind: jsonl, pth: p}\n",
            r":4: prompts\[0\].source.pth: no such key; did you mean path",
        ),
        ("name: a\ndataset: {views: [stf]}\n", r":2: dataset.views\[0\]: wanted one of sft, preference, .*did you mean sft"),
        ("name: a\nmodel: {revision: 4}\n", r":2: model.revision: wanted text or null, found 4"),
        ("name: a/b\n", r":1: name: wanted text \(.*matching"),
    ],
)
def test_a_fault_names_file_line_key_and_the_nearest(tmp_path: Path, text: str, message: str) -> None:
    """The error says where, what was wanted, what was found, and what to do."""
    path = tmp_path / "r.yaml"
    path.write_text(text)

    with pytest.raises(RecipeError, match=message) as error:
        recipe_file.load(path)
    assert str(error.value).startswith(str(path))


def test_every_fault_is_reported_at_once(tmp_path: Path) -> None:
    """All faults of a file are reported together."""
    path = tmp_path / "r.yaml"
    path.write_text("name: a\nsampling: {top_p: 2, max_tokens: 0}\nrunn: {}\n")

    with pytest.raises(RecipeError) as error:
        recipe_file.load(path)
    assert len(str(error.value).splitlines()) == 3


def test_a_missing_recipe_says_so(tmp_path: Path) -> None:
    """The path and the system's reason."""
    with pytest.raises(RecipeError, match=r"absent.yaml: cannot read the recipe: No such file"):
        recipe_file.load(tmp_path / "absent.yaml")


def test_overrides_change_values_by_key(recipe: Write) -> None:
    """Mappings by name, lists by number, values as YAML."""
    loaded = recipe_file.load(
        recipe(), ["sampling.max_tokens=64", "prompts.0.limit=2", "run.salt=night", "sampling.stop=['\\n']"]
    )

    assert loaded.recipe.sampling.max_tokens == 64
    assert loaded.recipe.prompts[0].limit == 2
    assert loaded.recipe.run.salt == "night"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("sampling.max_tokens", "wanted key=value"),
        ("sampling.max_tokns=1", "did you mean max_tokens"),
        ("prompts.9.limit=1", "no such place"),
        ("name.x=1", "no such place"),
    ],
)
def test_a_wrong_override_is_refused(recipe: Write, override: str, message: str) -> None:
    """An override is validated like the file."""
    with pytest.raises(RecipeError, match=message):
        recipe_file.load(recipe(), [override])


LEAVES = st.none() | st.booleans() | st.integers() | st.text(max_size=8)
DOCUMENTS = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
)


@pytest.mark.slow
@given(DOCUMENTS)
def test_any_document_loads_or_is_refused_with_a_recipe_error(tmp_path_factory: pytest.TempPathFactory, document: object) -> None:
    """Whatever stands in the file, it loads or it is a RecipeError."""
    import yaml

    path = tmp_path_factory.mktemp("any") / "r.yaml"
    path.write_text(yaml.safe_dump({"name": "a", "sampling": document, "prompts": document}))

    loaded = str(path)
    with contextlib.suppress(RecipeError):
        loaded = str(recipe_file.load(path).path)
    assert loaded == str(path)
