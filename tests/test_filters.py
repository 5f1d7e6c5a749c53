"""Building filters by name: registered ones, third-party ones, their parameters, keys and documented reasons."""

import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any, get_args, get_type_hints

import pytest
from pydantic import BaseModel

import filters
from filters.base import Filter, FilterError, Role, Scope
from filters.coherence.coherence import Fault
from filters.sandbox import Ran


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        ("exact_anser", {}, "did you mean exact_answer"),
        ("exact_duplicate", {}, "exact_duplicate: no such filter any more: the recipe's dedupe finds duplicates"),
        ("exact_duplicate", {}, "write `dedupe: {within_prompt: 1, within_run: null}`"),
        ("exact_answer", {"case_sensitiv": True}, "parameters.case_sensitiv: no such key; did you mean case_sensitive"),
        ("exact_answer", {"nfkc": "perhaps"}, "parameters.nfkc"),
        ("nowhere.module:build", {}, "cannot import nowhere.module"),
        ("filters.finished:biuld", {}, "has no function 'biuld'; did you mean build"),
    ],
)
def test_a_filter_that_cannot_be_built_says_why(name: str, parameters: dict[str, Any], message: str) -> None:
    """The message has the key, what was found and a similar name."""
    with pytest.raises(FilterError, match=re.escape(message)):
        filters.build(name, parameters)


def test_the_key_changes_with_version_and_parameters() -> None:
    """Verdicts with the same key come from the same rule."""
    keys = {filters.build("exact_answer", {"strip": strip}).key for strip in ("", ".", "!")}

    assert len(keys) == 3
    assert filters.build("exact_answer", {}).key == filters.build("exact_answer", {"strip": ""}).key


def test_every_reason_is_documented() -> None:
    """docs/verdicts.md explains each one."""
    source = "".join(path.read_text() for path in [*Path("filters").rglob("*.py"), Path("thresher/judging/winnow.py")])
    reasons = set(re.findall(r'(?:drop|undecided|RefusedError)\("([a-z_]+)"', source))
    reasons |= (
        set(re.findall(r'(?:DROP|UNDECIDED), "([a-z_]+)"', source))
        | set(re.findall(r'"([a-z_]+)": (?:DROP|UNDECIDED)\b', source))
        | {"contaminated", *get_args(Fault)}
        | set(get_args(get_type_hints(Ran)["kind"])) - {"done", "error"}
        | {
            "truncated",
            "cut_while_thinking",
            "empty",
            "aborted",
            "content_filter",
            "unknown_finish_reason",
            "exact_duplicate",
            "near_duplicate",
            "semantic_duplicate",
            "near_miss",
        }
    )
    reasons |= {"filter_error", "unreadable_row", "not_sampled"}

    documented = set(re.findall(r"^\| `([a-z_]+)`", Path("docs/verdicts.md").read_text(), re.MULTILINE))
    assert reasons == documented


FILTER = Filter("mine", "1", Scope.SAMPLE, Role.QUALITY, lambda table: [], ())


class Config(BaseModel):
    """The parameters of a third-party filter; its model does not forbid unknown keys."""

    threshold: int = 3


def refusing(config: Config) -> Filter:
    raise ValueError("threshold too small")


@pytest.fixture
def third_party(monkeypatch: pytest.MonkeyPatch) -> str:
    """Name of a module outside the package, whose filter does not record its parameters."""
    module = ModuleType("third_party")
    vars(module).update(
        Config=Config,
        refusing=refusing,
        build=lambda config: FILTER,
    )
    monkeypatch.setitem(sys.modules, "third_party", module)
    return "third_party"


def test_a_built_filter_carries_its_parameters_with_defaults(third_party: str) -> None:
    """Otherwise its key would not depend on them, and verdicts made with other parameters would be reused."""
    default, changed = filters.build(f"{third_party}:build", {}), filters.build(f"{third_party}:build", {"threshold": 5})

    assert (default.parameters, changed.parameters) == ({"threshold": 3}, {"threshold": 5})
    assert default.key != changed.key


@pytest.mark.parametrize(
    ("function", "parameters", "message"),
    [("build", {"treshold": 5}, "no such key; did you mean threshold"), ("refusing", {}, "threshold too small")],
    ids=["misspelt-key", "build-raises"],
)
def test_a_third_party_filter_is_built_as_strictly(
    third_party: str, function: str, parameters: dict[str, Any], message: str
) -> None:
    """A misspelt key is an error even if its Config would ignore it."""
    with pytest.raises(FilterError, match=message):
        filters.build(f"{third_party}:{function}", parameters)
