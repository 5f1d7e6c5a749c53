"""What filters are given: tools are passed to the filters that ask for them, and no filter keeps state between calls."""

import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

import pyarrow as pa
import pytest

import filters
from filters.base import Filter, FilterError, Role, Scope
from filters.code.text import fenced
from filters.judging import judge
from filters.sandbox import Job, Sandbox
from filters.supervise import Workers
from filters.tools import Tools
from helpers.filter_tables import pool_table

NEED_MODELS = ("judge", "reward", "coherence_model")


def third_party(build: Any, monkeypatch: pytest.MonkeyPatch) -> str:
    """Name of a filter outside the package, with this build function and no Config."""
    module = ModuleType("third_party")
    vars(module).update(build=build)
    monkeypatch.setitem(sys.modules, "third_party", module)
    return "third_party:build"


def keeps_all(name: str) -> Filter:
    return Filter(name, "1", Scope.SAMPLE, Role.QUALITY, lambda table: [], ("completion",))


def test_a_build_with_one_parameter_gets_the_config_only(monkeypatch: pytest.MonkeyPatch) -> None:
    name = third_party(lambda config, strict=False: keeps_all(f"strict_{strict}"), monkeypatch)

    assert filters.build(name, {}, Tools()).name == "strict_False"


def test_a_build_with_tools_gets_those_of_the_caller(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    name = third_party(lambda config, tools: keeps_all(str(tools.base)), monkeypatch)

    assert filters.build(name, {}, Tools(tmp_path)).name == str(tmp_path)
    assert filters.build(name, {}).name == "None"


@pytest.mark.parametrize("name", NEED_MODELS)
def test_a_filter_that_asks_a_model_needs_models(name: str) -> None:
    built = filters.build(name, {"model": {"name": "small"}})
    row = {"completion": "x", "reference": "x", "messages": [{"role": "user", "content": "x"}]}

    with pytest.raises(FilterError, match=f"{name}: the filter asks a model, but was built without `models`"):
        judge(built, pool_table(row))


@pytest.mark.slow
def test_closing_ends_the_processes_of_all_filters() -> None:
    """Workers and sandbox; a filter that is used later starts new ones."""
    with Tools(workers=Workers(1), sandbox=Sandbox(1)) as tools:
        code, maths = filters.build("code_tests", {}, tools), filters.build("math_answer", {}, tools)
        verdicts = judge(code, CODE), judge(maths, MATHS)
        pids = [*tools.workers.pids(), *tools.sandbox.pids()]
        assert len(pids) >= 2
    assert ended(pids)
    assert (judge(code, CODE), judge(maths, MATHS)) == verdicts
    again = [*tools.workers.pids(), *tools.sandbox.pids()]
    tools.close()

    assert ended(again)
    assert not set(pids) & set(again)


@pytest.mark.slow
def test_tools_that_are_dropped_end_their_processes() -> None:
    """A filter that was built without tools has some of its own, which nothing closes."""
    sandbox = Sandbox(1)
    assert sandbox.run([Job("", ("1",))])[0].frames[0].value == 1
    pids = sandbox.pids()
    del sandbox

    assert pids
    assert ended(pids)


def ended(pids: list[int]) -> bool:
    deadline = time.monotonic() + 5
    while any(Path(f"/proc/{pid}").exists() for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.01)
    return not any(Path(f"/proc/{pid}").exists() for pid in pids)


# -- no state ----------------------------------------------------------------------------------------------------------------

TEXTS = [
    "42",
    "\\boxed{\\frac{84}{2}}",
    "The answer is 41.",
    "I think that it is 42, or maybe 43.",
    "",
    '{"a": 1}',
    "It is good good good.",
]
MATHS = pool_table(*({"completion": text, "reference": "\\frac{42}{1}"} for text in TEXTS))
PROGRAMS = ["def f(x): return 2 * x", "def f(x): return x", "def f(x): return 1 / 0", "def f(x) return", "no program"]
CODE = pool_table(*({"completion": fenced(text), "reference": ["assert f(2) == 4"]} for text in PROGRAMS))
CALLS = pool_table(*({"completion": "", "tool_calls": text} for text in ['[{"name": "add", "arguments": {"x": 1}}]', None]))
CASES: dict[str, tuple[dict[str, Any], pa.Table]] = {
    "finished": ({}, MATHS),
    "exact_answer": ({}, MATHS),
    "json_shape": ({"schema": {"type": "object", "required": ["a"]}}, MATHS),
    "math_answer": ({}, MATHS),
    "code_tests": ({"seconds": 20}, CODE),
    "regex": ({"pattern": "(?P<answer>[0-9]+)"}, MATHS),
    "instruction": ({"checks": {"punctuation:no_comma": {}}}, MATHS),
    "coherence": ({}, MATHS),
    "python": ({"build": "filters.finished:build"}, MATHS),
    "majority": ({}, MATHS),
    "tool_call": ({"expected": "any"}, CALLS),
}


@pytest.fixture(scope="module")
def tools() -> Iterator[Tools]:
    with Tools(workers=Workers(2), sandbox=Sandbox(2)) as opened:
        yield opened


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_no_filter_keeps_state(name: str, tools: Tools) -> None:
    """The same batch gets the same verdicts: in parallel threads, in another order, and from a filter that is built again."""
    parameters, table = CASES[name]
    built = filters.build(name, parameters, tools)
    first = judge(built, table)
    with ThreadPoolExecutor(4) as threads:
        later = list(threads.map(lambda _: judge(built, table), range(4)))

    assert [batch.equals(first) for batch in later] == [True] * 4
    assert judge(filters.build(name, parameters, tools), table).equals(first)
    backwards = pa.array(range(table.num_rows - 1, -1, -1))
    assert judge(built, table.take(backwards)).take(backwards).equals(first)


def test_every_registered_filter_is_tried_for_state() -> None:
    """Except those that need a file, a package or a model."""
    assert set(filters.FILTERS) - set(CASES) <= {"decontaminate", "reasoning_gym", *NEED_MODELS, "exact_duplicate"}
