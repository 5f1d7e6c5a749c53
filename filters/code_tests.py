"""Keeps programs that pass the tests of the reference. Values come out of the sandbox, verdicts are made outside of it.

A reference is one of (JSON):

- a list of assertions: `["assert f(1) == 2", ...]`, as MBPP's `test_list`; the names that they call are the program's
- `{"test_list": [...], "test_setup_code": "...", "test_imports": [...], "challenge_test_list": [...], "code": "..."}` (MBPP)
- `{"tests": [...] or "...", "entry_point": "f" or ["f", "g"], "prompt": "def f(x):...", "solution": "..."}`
- `{"test": "def check(candidate): ...", "entry_point": "f", "prompt": "...", "canonical_solution": "..."}` (HumanEval)
- `{"inputs": [...], "outputs": [...]}` of texts for standard input and output, or with `fn_name` of arguments and results; the
  same as `input_output` (APPS, TACO); `{"public_tests": {"input": [...], "output": [...]}, "private_tests": ...}` (CodeContests)
- `[{"stdin": "...", "stdout": "..."}, ...]`

Name the entry point where there is one: it is then the only name that the program is asked for. How a test becomes cases, and
what is refused, stands in filters.code_cases; what counts as equal in filters.code_values; how the program is read out of a
completion in filters.code_text; what contains the program, and what does not, in filters.sandbox.

The program never sees an expected value, but it does see the arguments of every call: a test whose values can be guessed from
its arguments, or that asserts little (`assert f(2)`), is as weak here as anywhere.
"""

import builtins
import json
from collections import OrderedDict
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Literal

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field

from filters import sandbox
from filters.base import Filter, FilterError, Role, Scope
from filters.code_cases import Case, RefusedError, holds
from filters.code_reference import Tests, read
from filters.code_text import fenced, program_of
from filters.code_values import Tolerance, TooMuchError
from filters.sandbox import Frame, Job, Ran, SandboxError
from schemas.sample import Verdict

REMEMBERED = 8_192
"""Verdicts on (program, tests) that are kept from batch to batch."""
SHOWN_CHARS = 200
_SYNTAX = ("SyntaxError", "IndentationError", "TabError")


class Config(BaseModel):
    """Parameters of `code_tests`."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    seconds: float = Field(default=5.0, gt=0, le=300)
    """Wall time for a program and all of its calls, or for one standard input; later is undecided as `timeout`."""
    relative_tolerance: float = Field(default=1e-6, ge=0, lt=1)
    """Two numbers of which one is a float are equal if they differ by at most this share of the larger."""
    absolute_tolerance: float = Field(default=1e-9, ge=0)
    """Or by at most this much."""
    nan_equal: bool = False
    """NaN equals NaN."""
    stdout: Literal["lines", "tokens", "exact"] = "lines"
    """How standard output is compared. `lines`: without white space at the ends of lines and of the text; `tokens`: word by
    word, numbers with a decimal point within the tolerance; `exact`: character by character."""


def build(config: Config) -> Filter:
    """Drop `wrong_output`, `raised`, `no_entry_point`, `syntax_error`; undecided with `unparsed`, `timeout`, `crash`,
    `tampering`, `unverifiable`, `filter_error`, `no_reference`, `bad_reference`. The score is the share of cases that passed."""
    tolerance = Tolerance(config.relative_tolerance, config.absolute_tolerance, config.nan_equal)
    remembered: OrderedDict[tuple[str, str], Verdict] = OrderedDict()

    @lru_cache(maxsize=4_096)  # the samples of a prompt share their reference
    def tests_of(text: str) -> Tests | str:
        try:
            return read(json.loads(text))
        except RefusedError as error:
            return str(error)

    def judge(table: pa.Table) -> list[Verdict]:
        given: list[Verdict | tuple[str, str]] = []
        wanted: dict[tuple[str, str], Tests] = {}
        for completion, text in zip(table["completion"].to_pylist(), table["reference"].to_pylist(), strict=True):
            tests = None if text is None or text == "null" else tests_of(text)
            if tests is None:
                given.append(Verdict.undecided("no_reference"))
            elif isinstance(tests, str):
                given.append(Verdict.undecided("bad_reference", why=tests))
            elif (program := program_of(completion, tests.entry_points, tests.beginning)) is None:
                given.append(Verdict.undecided("unparsed"))
            else:
                given.append((program, text))
                wanted[program, text] = tests
        verdicts = {pair: remembered[pair] for pair in wanted if pair in remembered}
        verdicts |= _ran({pair: tests for pair, tests in wanted.items() if pair not in verdicts}, config, tolerance)
        for pair, verdict in verdicts.items():
            if verdict.outcome != "undecided":  # what was late or broke once may be neither the next time
                remembered[pair] = verdict
                remembered.move_to_end(pair)
        while len(remembered) > REMEMBERED:
            remembered.popitem(last=False)
        return [one if isinstance(one, Verdict) else verdicts[one] for one in given]

    def read_or_none(reference: Any) -> Tests | None:
        try:
            return None if reference is None else read(reference)
        except RefusedError:
            return None

    def gold(reference: Any) -> str | None:
        tests = read_or_none(reference)
        return None if tests is None or tests.solution is None else fenced(tests.solution)

    def wrong(reference: Any) -> str | None:
        tests = read_or_none(reference)
        if tests is None:
            return None
        if tests.pairs:
            return fenced("print('no test asks for this line')")
        return fenced("\n".join(f"def {name}(*_, **__): return object()" for name in tests.entry_points))

    def self_test() -> str:
        try:
            return str(sandbox.self_test())
        except SandboxError as error:
            raise FilterError(f"code_tests: {error}") from error

    columns = ("completion", "reference")
    parameters = config.model_dump(mode="json")
    return Filter(
        "code_tests", "1", Scope.SAMPLE, Role.VERIFIER, judge, columns, parameters, gold, wrong, cost_us=10_000.0,
        self_test=self_test,
    )  # fmt: skip


def _ran(wanted: dict[tuple[str, str], Tests], config: Config, tolerance: Tolerance) -> dict[tuple[str, str], Verdict]:
    """Run every program on its tests, all in one call of the sandbox."""
    jobs: list[Job] = []
    for (program, _), tests in wanted.items():
        if tests.pairs:
            jobs += [Job(program, stdin=given, seconds=config.seconds) for given, _ in tests.pairs]
        else:
            jobs.append(Job(program, tests.calls, seconds=config.seconds))
    try:
        done = iter(sandbox.run(jobs))
    except SandboxError as error:
        raise FilterError(f"code_tests: {error}") from error
    return {
        pair: _of_pairs(tests, [next(done) for _ in tests.pairs], config.stdout, tolerance)
        if tests.pairs
        else _of_calls(tests, next(done), tolerance)
        for pair, tests in wanted.items()
    }


def _unfinished(ran: Ran) -> Verdict | None:
    """What is no evidence: a program that did not come to its end."""
    if ran.kind == "timeout":
        return Verdict.undecided("timeout", message=ran.message)
    if ran.kind == "crash":
        return Verdict.undecided("crash", message=ran.message)
    if ran.kind == "tampering":
        return Verdict.undecided("tampering", message=ran.message)
    return Verdict.undecided("filter_error", message=ran.message) if ran.kind == "error" else None


def _of_calls(tests: Tests, ran: Ran, tolerance: Tolerance) -> Verdict:
    """The verdict on a program's calls. A wrong value is evidence even where a later call was late or broke."""
    if ran.kind in ("tampering", "error"):
        return _unfinished(ran) or Verdict.undecided("crash")
    if ran.failed is not None:
        return _failed(ran.failed)
    passed, first, unsaid = 0, None, ""
    for case in tests.cases:
        if max(case.calls) >= len(ran.frames):
            continue
        frames = {at: ran.frames[at] for at in case.calls}
        try:
            if _passes(case, frames, tolerance):
                passed += 1
            elif first is None:
                first = case
        except TooMuchError as error:
            unsaid = unsaid or f"line {case.line}: {error}"
    if first is not None:
        return _wrong(tests, first, ran.frames, passed / len(tests.cases))
    if (unfinished := _unfinished(ran)) is not None:
        return unfinished
    if unsaid or passed < len(tests.cases):
        return Verdict.undecided("unverifiable", why=unsaid or "not every call was made")
    return Verdict.keep(1.0)


def _passes(case: Case, frames: dict[int, Frame], tolerance: Tolerance) -> bool:
    raised = next((frame.raised for frame in frames.values() if frame.raised is not None), None)
    if case.raises:
        return raised is not None and not _missing(raised) and any(_is_a(raised[0], wanted) for wanted in case.raises)
    return raised is None and holds(case, {at: frame.value for at, frame in frames.items()}, tolerance)


def _is_a(name: str, wanted: str) -> bool:
    """Whether an exception of that name is one of the wanted, by Python's own tree; others are known by their name alone."""
    if wanted in {name, "BaseException"}:
        return True
    found, asked = getattr(builtins, name, None), getattr(builtins, wanted, None)
    if not isinstance(found, type):
        return wanted == "Exception"
    return isinstance(asked, type) and issubclass(found, asked)


def _missing(raised: tuple[str, str]) -> bool:
    return raised[0] == "NameError" and raised[1].startswith("name ")


def _wrong(tests: Tests, case: Case, frames: Sequence[Frame], score: float) -> Verdict:
    at = next((at for at in case.calls if frames[at].raised is not None), case.calls[0])
    frame, call = frames[at], tests.calls[at][:SHOWN_CHARS]
    if frame.raised is not None and not case.raises:
        if any(frame.raised == ("NameError", f"name {name!r} is not defined") for name in tests.entry_points):
            return Verdict.drop("no_entry_point", score, call=call)
        return Verdict.drop(
            "raised", score, call=call, line=case.line, type=frame.raised[0], message=frame.raised[1][:SHOWN_CHARS]
        )
    found = frame.raised[0] if frame.raised is not None else type(frame.value).__name__
    shown = frame.raised[1] if frame.raised is not None else repr(frame.value)
    return Verdict.drop("wrong_output", score, call=call, line=case.line, found_type=found, found=_printable(shown))


def _printable(text: str) -> str:
    """The start of a text, without halves of surrogate pairs, which no column can hold."""
    return text[:SHOWN_CHARS].encode("utf-8", "replace").decode()


def _failed(failed: tuple[str, str]) -> Verdict:
    if failed[0] in _SYNTAX:
        return Verdict.drop("syntax_error", 0.0, message=_printable(failed[1]))
    return Verdict.drop("raised", 0.0, type=_printable(failed[0]), message=_printable(failed[1]))


def _of_pairs(tests: Tests, runs: list[Ran], how: str, tolerance: Tolerance) -> Verdict:
    """The verdict on a program's outputs, a run for each input."""
    passed = [ran.kind == "done" and ran.failed is None and not ran.stdout_cut and _said(ran.stdout, wanted, how, tolerance)
              for ran, (_, wanted) in zip(runs, tests.pairs, strict=True)]  # fmt: skip
    score = sum(passed) / len(passed)
    for at, ran in enumerate(runs):
        if ran.kind != "done" or passed[at]:
            continue
        if ran.failed is not None and ran.failed[0] in _SYNTAX:
            return _failed(ran.failed)
        if ran.failed is not None:
            return Verdict.drop("raised", score, input=at, type=_printable(ran.failed[0]), message=_printable(ran.failed[1]))
        return Verdict.drop("wrong_output", score, input=at, found=_printable(ran.stdout))
    return next((one for one in map(_unfinished, runs) if one is not None), Verdict.keep(1.0))


def _said(found: str, wanted: str, how: str, tolerance: Tolerance) -> bool:
    if how == "exact":
        return found == wanted
    if how == "lines":
        return [one.rstrip() for one in found.rstrip().split("\n")] == [one.rstrip() for one in wanted.rstrip().split("\n")]
    ones, others = found.split(), wanted.split()
    return len(ones) == len(others) and all(_same_word(one, other, tolerance) for one, other in zip(ones, others, strict=True))


def _same_word(found: str, wanted: str, tolerance: Tolerance) -> bool:
    if found == wanted:
        return True
    if "." not in wanted or len(found) > 64 or not set(found + wanted) <= set("0123456789+-.eE"):
        return False
    try:
        one, other = float(found), float(wanted)
    except ValueError:
        return False
    return abs(one - other) <= max(tolerance.relative * max(abs(one), abs(other)), tolerance.absolute)
