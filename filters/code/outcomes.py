"""The verdict on a program, from what the sandbox returned for its calls or its standard inputs."""

import builtins
import re
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence

from filters.code.bindings import Case
from filters.code.cases import holds
from filters.code.reference import Tests
from filters.code.values import CannotTellError, Tolerance
from filters.code.whitelist import TooMuchError
from filters.sandbox import Frame, Other, Ran
from filters.sandbox.values import OWN
from schemas.sample import Verdict

SHOWN_CHARS = 200
_NO_MODULE = re.compile(r"No module named '([^']+)'.*", re.DOTALL)
_HELD = re.compile(r"^\(_object_\d+ := (.*)\)$", re.DOTALL)
_SYNTAX = ("SyntaxError", "IndentationError", "TabError")
_OFTEN_ABSENT = frozenset(
    "curses dbm ensurepip idlelib lib2to3 nis ossaudiodev pydoc_data readline test tkinter turtle turtledemo".split()
)
"""Modules of the standard library that many installations and the sandbox's copy of Python lack."""


def of_calls(tests: Tests, ran: Ran, tolerance: Tolerance) -> Verdict:
    """Return the verdict on a program's calls. A wrong value counts even if a later call timed out or crashed."""
    if ran.kind in ("tampering", "error"):
        return _unfinished(ran) or Verdict.undecided("crash")
    if ran.failed is not None:
        return _failed(ran.failed)
    passed, first_wrong, undecided = 0, None, ""
    for case in tests.cases:
        if max(case.calls) >= len(ran.frames):
            continue
        frames = {call: ran.frames[call] for call in case.calls}
        try:
            if _passes(case, frames, tolerance):
                passed += 1
            elif first_wrong is None:
                first_wrong = case
        except (TooMuchError, CannotTellError) as error:
            undecided = undecided or f"line {case.line}: {error}"
    missing = next((name for frame in ran.frames if (name := missing_package(frame.raised))), "")
    if missing:
        return Verdict.undecided("missing_package", package=missing)
    if first_wrong is not None:
        return _wrong(tests, first_wrong, ran.frames, passed / len(tests.cases))
    if (unfinished := _unfinished(ran)) is not None:
        return unfinished
    if undecided or passed < len(tests.cases):
        return Verdict.undecided("unverifiable", why=undecided or "not every call was made")
    return Verdict.keep(1.0)


def of_pairs(tests: Tests, runs: Sequence[Ran], how: str, tolerance: Tolerance) -> Verdict:
    """Return the verdict on a program's standard outputs, one run per input. `how`: lines, tokens or exact."""
    passed = [
        ran.kind == "done" and ran.failed is None and not ran.stdout_cut and _same_output(ran.stdout, expected, how, tolerance)
        for ran, (_, expected) in zip(runs, tests.pairs, strict=True)
    ]
    score = sum(passed) / len(passed)
    for index, ran in enumerate(runs):
        if ran.kind != "done" or passed[index]:
            continue
        if ran.failed is not None and (ran.failed[0] in _SYNTAX or missing_package(ran.failed)):
            return _failed(ran.failed)
        if ran.failed is not None:
            kind, message = map(_printable, ran.failed)
            return Verdict.drop("raised", score, input=index, type=kind, message=message)
        return Verdict.drop("wrong_output", score, input=index, found=_printable(ran.stdout))
    return next((verdict for verdict in map(_unfinished, runs) if verdict is not None), Verdict.keep(1.0))


def missing_package(raised: tuple[str, str] | None) -> str | None:
    """The package that a program imports and that the sandbox does not have, from what it raised; None for anything else."""
    found = _NO_MODULE.fullmatch(raised[1]) if raised is not None and raised[0] == "ModuleNotFoundError" else None
    package = found[1].partition(".")[0] if found else ""
    return package[:SHOWN_CHARS] if package and package not in sys.stdlib_module_names else None


def without_absent(verdict: Verdict, program: str, present: Collection[str] = ()) -> Verdict:
    """Return the verdict, or undecided for a drop of a program that imports what the sandbox may lack: it may have caught the
    failure of the import, or raised another exception for it, and could be right where the package is. `present`: the modules of
    the packages that the sandbox has."""
    if verdict.reason not in ("raised", "wrong_output", "no_entry_point"):
        return verdict
    absent = next((name for name in _imported(program) if _may_be_absent(name) and name not in present), None)
    return verdict if absent is None else Verdict.undecided("missing_package", package=absent[:SHOWN_CHARS])


def _imported(program: str) -> Iterator[str]:
    """The packages that a program's import statements name. The text is not parsed: a hostile one could exhaust the parser."""
    for statement in re.split(r"[;:\n]", program):
        words = statement.partition("#")[0].split(maxsplit=3)
        if words[:1] == ["from"] and words[2:3] == ["import"]:
            yield words[1].partition(".")[0]
        elif words[:1] == ["import"]:
            for item in statement.partition("#")[0].strip().removeprefix("import").split(","):
                parts = item.split()
                if len(parts) == 1 or (len(parts) == 3 and parts[1] == "as"):
                    yield parts[0].partition(".")[0]


def _may_be_absent(name: str) -> bool:
    known = name in sys.stdlib_module_names or name == "__main__"
    return name.isidentifier() and (not known or name in _OFTEN_ABSENT)


def _unfinished(ran: Ran) -> Verdict | None:
    """Undecided for a program that did not run to its end, which is no evidence; otherwise None."""
    if ran.kind == "done":
        return None
    undecided = Verdict.broken if ran.broken else Verdict.undecided
    return undecided("filter_error" if ran.kind == "error" else ran.kind, message=ran.message)


def _passes(case: Case, frames: Mapping[int, Frame], tolerance: Tolerance) -> bool:
    raised = next((frame.raised for frame in frames.values() if frame.raised is not None), None)
    if case.raises:
        return raised is not None and not _is_missing(raised) and any(_is_a(raised[0], kind) for kind in case.raises)
    return raised is None and holds(case, {call: frame.value for call, frame in frames.items()}, tolerance)


def _is_a(name: str, expected: str) -> bool:
    """Whether an exception is of the expected class, by Python's class tree. Exceptions of the program match by name only, and
    by no name of a built-in one."""
    if name.startswith(OWN):
        is_built_in = hasattr(builtins, expected)
        return expected in {"BaseException", "Exception"} or (expected == name.removeprefix(OWN) and not is_built_in)
    if expected in {name, "BaseException"}:
        return True
    kind, expected_kind = getattr(builtins, name, None), getattr(builtins, expected, None)
    if not isinstance(kind, type):
        return expected == "Exception"
    return isinstance(expected_kind, type) and issubclass(kind, expected_kind)


def _is_missing(raised: tuple[str, str]) -> bool:
    return raised[0] == "NameError" and raised[1].startswith("name ")


def _wrong(tests: Tests, case: Case, frames: Sequence[Frame], score: float) -> Verdict:
    index = next((call for call in case.calls if frames[call].raised is not None), case.calls[0])
    frame, call = frames[index], _HELD.sub(r"\1", tests.calls[index])[:SHOWN_CHARS]
    if frame.raised is not None and not case.raises:
        if any(frame.raised == ("NameError", f"name {name!r} is not defined") for name in tests.entry_points):
            return Verdict.drop("no_entry_point", score, call=call)
        return Verdict.drop(
            "raised", score, call=call, line=case.line, type=frame.raised[0], message=frame.raised[1][:SHOWN_CHARS]
        )
    kind = frame.raised[0] if frame.raised is not None else _kind(frame.value)
    text = frame.raised[1] if frame.raised is not None else repr(frame.value)
    return Verdict.drop("wrong_output", score, call=call, line=case.line, found_type=kind, found=_printable(text))


def _kind(value: object) -> str:
    """The name of a value's type inside the sandbox."""
    return value.type_name if isinstance(value, Other) else type(value).__name__


def _printable(text: str) -> str:
    """The start of a text, without lone surrogates, which no column can hold."""
    return text[:SHOWN_CHARS].encode("utf-8", "replace").decode()


def _failed(failed: tuple[str, str]) -> Verdict:
    kind, message = map(_printable, failed)
    if (missing := missing_package(failed)) is not None:
        return Verdict.undecided("missing_package", package=missing)
    if failed[0] in _SYNTAX:
        return Verdict.drop("syntax_error", 0.0, message=message)
    return Verdict.drop("raised", 0.0, type=kind, message=message)


def _same_output(output: str, expected: str, how: str, tolerance: Tolerance) -> bool:
    if how == "exact":
        return output == expected
    if how == "lines":
        return _lines(output) == _lines(expected)
    words, expected_words = output.split(), expected.split()
    return len(words) == len(expected_words) and all(
        _same_word(word, expected_word, tolerance) for word, expected_word in zip(words, expected_words, strict=True)
    )


def _lines(text: str) -> list[str]:
    return [line.rstrip() for line in text.rstrip().split("\n")]


def _same_word(word: str, expected: str, tolerance: Tolerance) -> bool:
    if word == expected:
        return True
    if "." not in expected or len(word) > 64 or not set(word + expected) <= set("0123456789+-.eE"):
        return False
    try:
        value, expected_value = float(word), float(expected)
    except ValueError:
        return False
    return abs(value - expected_value) <= max(tolerance.relative * max(abs(value), abs(expected_value)), tolerance.absolute)
