"""Keeps programs that pass the tests of the reference. Values come out of the sandbox; verdicts are made outside.

A reference is one of (JSON):

- a list of assertions: `["assert f(1) == 2", ...]`, as MBPP's `test_list`; the names they call are the program's
- `{"test_list": [...], "test_setup_code": "...", "test_imports": [...], "challenge_test_list": [...], "code": "..."}` (MBPP)
- `{"tests": [...] or "...", "entry_point": "f" or ["f", "g"], "prompt": "def f(x):...", "solution": "..."}`
- `{"test": "def check(candidate): ...", "entry_point": "f", "prompt": "...", "canonical_solution": "..."}` (HumanEval)
- `{"inputs": [...], "outputs": [...]}` of texts for standard input and output, or with `fn_name` of arguments and results; the
  same as `input_output` (APPS, TACO); `{"public_tests": {"input": [...], "output": [...]}, "private_tests": ...}` (CodeContests)
- `[{"stdin": "...", "stdout": "..."}, ...]`

Name the entry point if there is one: only that name is then taken from the program. filters.code.cases converts tests into cases
and documents what it refuses; filters.code.values defines equality; filters.code.text extracts the program from a completion;
filters.sandbox documents what contains the program and what does not.

The program never sees an expected value, but it does see the arguments of every call. A test whose results follow from the
arguments, or that asserts little (`assert f(2)`), is weak here too.
"""

import json
from collections.abc import Collection, Mapping
from typing import Any, Literal

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field

from filters.base import Filter, FilterError, Role, Scope
from filters.code.bindings import RefusedError
from filters.code.outcomes import of_calls, of_pairs, without_absent
from filters.code.reference import Tests, read
from filters.code.text import called_by, fenced, program_of
from filters.code.values import Tolerance
from filters.sandbox import Job, NoPackageError, Sandbox, SandboxError, installed, modules
from filters.tools import Tools
from filters.trust import refused_code
from schemas.sample import Verdict

_KNOWN = frozenset("numpy pandas scipy sympy networkx scikit-learn sortedcontainers".split())
"""Packages that a recipe from others may name: what they need of this machine is found out by importing them outside the sandbox,
as a user without rights."""


class Config(BaseModel):
    """Parameters of `code_tests`."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    seconds: float = Field(default=5.0, gt=0, le=300)
    """Wall time for a program and all its calls, or for one standard input; a slower one is undecided as `timeout`."""
    relative_tolerance: float = Field(default=1e-9, ge=0, lt=1)
    """A number equals an expected float if they differ by at most this share of the larger one. An expected integer is compared
    exactly, and a tolerance that the test states counts instead (`pytest.approx`, `math.isclose`, `abs(a - b) < 1e-6`)."""
    absolute_tolerance: float = Field(default=1e-12, ge=0)
    """Or by at most this much."""
    nan_equal: bool = False
    """NaN equals NaN."""
    packages: tuple[str, ...] = ()
    """Installed packages that programs may import, by their names on the package index: `numpy`, `pandas`, `scipy`, `sympy`,
    `networkx`, `scikit-learn`, `sortedcontainers`, and any that you trust (`--trust-code`). What they require comes with them. A
    program that imports another is undecided as `missing_package`. What they take counts in a program's 512 MiB."""
    stdout: Literal["lines", "tokens", "exact"] = "lines"
    """How standard output is compared. `lines`: without white space at the ends of lines and of the text; `tokens`: word by
    word, numbers with a decimal point within the tolerance; `exact`: character by character."""


def build(config: Config, tools: Tools) -> Filter:
    """Drop `wrong_output`, `raised`, `no_entry_point`, `syntax_error`; undecided with `unparsed`, `timeout`, `crash`,
    `tampering`, `unverifiable`, `missing_package`, `filter_error`, `no_reference`, `bad_reference`.

    The score is the share of cases that passed.
    """
    sandbox = tools.sandbox
    refused = (why for name in config.packages if name not in _KNOWN and (why := refused_code(name)) is not None)
    if (why := next(refused, None)) is not None:
        raise FilterError(f"code_tests: packages: {why}")
    try:
        versions, present = installed(config.packages), modules(config.packages)
    except NoPackageError as error:
        raise FilterError(f"code_tests: {error}") from error

    def judge(table: pa.Table) -> list[Verdict]:
        completions, references = table["completion"].to_pylist(), table["reference"].to_pylist()
        # The samples of a prompt share their reference.
        tests = {text: _tests_of(text) for text in dict.fromkeys(references)}
        rows: list[Verdict | tuple[str, str]] = []
        programs: dict[tuple[str, str], Tests] = {}
        for completion, text in zip(completions, references, strict=True):
            test = tests[text]
            if isinstance(test, Verdict):
                rows.append(test)
            elif (program := program_of(completion, test.entry_points, test.prefix)) is None:
                rows.append(Verdict.undecided("unparsed"))
            else:
                rows.append((program, text))
                programs[program, text] = test
        verdicts = _run(sandbox, programs, config, present)
        return [row if isinstance(row, Verdict) else verdicts[row] for row in rows]

    def self_test() -> str:
        try:
            return str(sandbox.self_test())
        except SandboxError as error:
            raise FilterError(f"code_tests: {error}") from error

    columns = ("completion", "reference")
    parameters = config.model_dump(mode="json", exclude={"packages"}) | ({"packages": versions} if versions else {})
    return Filter(
        "code_tests", "2", Scope.SAMPLE, Role.VERIFIER, judge, columns, parameters, _gold, _wrong, cost_us=10_000.0,
        self_test=self_test,
    )  # fmt: skip


def _gold(reference: Any) -> str | None:
    tests = _readable(reference)
    return None if tests is None or tests.solution is None else fenced(tests.solution)


def _wrong(reference: Any) -> str | None:
    tests = _readable(reference)
    if tests is None:
        return None
    if tests.pairs:
        return fenced("print('no test asks for this line')")
    return fenced("\n".join(f"def {name}(*_, **__): return 'no test asks for this'" for name in tests.entry_points))


def _readable(reference: Any) -> Tests | None:
    try:
        return None if reference is None else read(reference)
    except RefusedError:
        return None


def _tests_of(text: str | None) -> Tests | Verdict:
    """The tests of a reference, or the verdict on all its samples."""
    if text is None or text == "null":
        return Verdict.undecided("no_reference")
    try:
        return read(json.loads(text))
    except RefusedError as error:
        return Verdict.undecided("bad_reference", why=str(error))


def _run(
    sandbox: Sandbox, programs: Mapping[tuple[str, str], Tests], config: Config, present: Collection[str]
) -> dict[tuple[str, str], Verdict]:
    """Run every distinct program on its tests, all in one call of the sandbox."""
    jobs: list[Job] = []
    for (program, _), tests in programs.items():
        if tests.pairs:
            jobs += [Job(program, stdin=stdin, seconds=config.seconds) for stdin, _ in tests.pairs]
        else:
            jobs.append(Job(program, called_by(program, tests.calls, tests.entry_points), seconds=config.seconds))
    try:
        results = iter(sandbox.run(jobs, config.packages))
    except SandboxError as error:
        raise FilterError(f"code_tests: {error}") from error
    tolerance = Tolerance(config.relative_tolerance, config.absolute_tolerance, config.nan_equal)
    return {
        pair: without_absent(
            of_pairs(tests, [next(results) for _ in tests.pairs], config.stdout, tolerance)
            if tests.pairs
            else of_calls(tests, next(results), tolerance),
            pair[0],
            present,
        )
        for pair, tests in programs.items()
    }
