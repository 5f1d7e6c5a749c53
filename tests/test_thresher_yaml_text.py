"""YAML is read the same way, whatever other libraries do to PyYAML."""

import subprocess
import sys
from typing import Any

import pytest
import yaml

from thresher import yaml_text

PROGRAM = """
import datetime, sys, yaml
if sys.argv[1] == "before":
    import lmformatenforcer.external.jsonschemaobjectutil
from thresher import yaml_text
if sys.argv[1] == "after":
    import lmformatenforcer.external.jsonschemaobjectutil
loaders = (yaml.SafeLoader, yaml_text.SafeLoader, yaml_text.FastLoader)
print(*(type(yaml.load("2026-11-30", loader)).__name__ for loader in loaders))
"""


@pytest.mark.slow
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_date_is_a_date_where_another_library_has_changed_the_loaders(when: str) -> None:
    pytest.importorskip("lmformatenforcer")
    done = subprocess.run([sys.executable, "-c", PROGRAM, when], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["str", "date", "date"]


@pytest.mark.parametrize("text", ["2026-99-99", "[" * 5000, "a: [b", "a: 1\nb\n"])
def test_text_that_is_no_yaml_is_one_error(text: str) -> None:
    with pytest.raises(yaml.YAMLError):
        yaml_text.load(text)


GROWING = "\n".join(f"{name}: &{name} [{', '.join([f'*{inner}'] * 9)}]" for inner, name in zip("abcdef", "bcdefg", strict=True))


@pytest.mark.parametrize("loader", [yaml_text.SafeLoader, yaml_text.FastLoader])
@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (f"a: &a [x]\n{GROWING}", "more than 500,000 values"),
        (f"a: &a {{x: 1}}\n{GROWING.replace('[', '{<<: [').replace(']', ']}')}", "more than 500,000 values"),
        ("&a [*a]", "an alias stands inside"),
        ("[" * 100_000, "more than 100 levels"),
        ("? " * 20_000, "more than 100 levels"),
        ("0x" + "f" * 1000, "more than 400 characters"),
        ("!!bool x", "x"),
    ],
)
def test_a_text_that_stands_for_too_much_is_one_error(text: str, problem: str, loader: Any) -> None:
    """The loader in C would overflow its stack."""
    with pytest.raises(yaml.YAMLError, match=problem):
        yaml_text.load(text, loader)


def test_aliases_within_bounds_are_read() -> None:
    assert yaml_text.load("a: &a [1]\nb: [*a, *a]\nc: {<<: {x: 1}}") == {"a": [1], "b": [[1], [1]], "c": {"x": 1}}


@pytest.mark.parametrize(
    ("value", "place"),
    [
        ({"a": [1, float("nan")]}, ("a", 1)),
        ({"a": {"b": float("inf")}}, ("a", "b")),
        ({"a": 2**64}, ("a",)),
        ({"a": {1: 2}}, ("a",)),
        ({"a": "\ud800"}, ("a",)),
        ({"a": "x\0"}, ("a",)),
    ],
)
def test_a_value_that_no_file_can_hold_is_found(value: Any, place: tuple[str | int, ...]) -> None:
    odd = yaml_text.odd_value(value)

    assert odd is not None
    assert odd[0] == place
    assert yaml_text.odd_value({"a": [1, 2**63, -0.5, None, True, "ü\x1b"]}) is None
