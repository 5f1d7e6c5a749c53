"""Reads a reference of `code_tests`: the calls or inputs for a program, and the expected results.

filters.code.tests lists the forms. Each becomes either calls with cases, or pairs of standard input and output.
"""

import ast
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from filters.code.bindings import Case, RefusedError, known, literal, names_in
from filters.code.cases import CASES, convert
from filters.code.lowering import LITERAL_CHARS
from filters.code.text import defines
from filters.code.values import as_json

STDIN_CHARS = 1_000_000
_LIVE = ("public_test_cases", "private_test_cases", "metadata")


@dataclass(frozen=True, slots=True)
class Tests:
    """The tests of a reference: either `calls` and `cases`, or `pairs` of standard input and output.

    `prefix` is the start of the program, which the completion continues. `solution` is a correct program, or None.
    """

    entry_points: tuple[str, ...] = ()
    calls: tuple[str, ...] = ()
    cases: tuple[Case, ...] = ()
    pairs: tuple[tuple[str, str], ...] = ()
    prefix: str = ""
    solution: str | None = None


def read(reference: Any) -> Tests:
    """Read the tests of a reference. Raises RefusedError, whose message names what was wanted and what was found."""
    if isinstance(reference, list):
        if reference and all(isinstance(pair, dict) for pair in reference):
            return _of_rows(reference, None)
        return _asserted({"tests": reference})
    if not isinstance(reference, dict):
        raise RefusedError(f"wanted a list or an object, found {type(reference).__name__}")
    row = dict(reference)
    if "public_test_cases" in row:
        try:
            return _live(row)
        except ValueError as error:
            raise RefusedError(f"public_test_cases: {error}; packed private tests are to be unpacked first") from error
    if "input_output" in row:
        nested = row["input_output"]
        try:
            row |= json.loads(nested) if isinstance(nested, str) else nested
        except (ValueError, TypeError) as error:
            raise RefusedError(f"input_output: {error}") from error
    groups = [row[name] for name in ("public_tests", "private_tests", "generated_tests") if isinstance(row.get(name), dict)]
    if groups:
        row["inputs"] = [text for group in groups for text in group.get("input", ())]
        row["outputs"] = [text for group in groups for text in group.get("output", ())]
    if "inputs" in row:
        solution = _solution(row)
        if isinstance(row.get("fn_name"), str):
            return _called(row, solution)
        return _pairs(row["inputs"], row.get("outputs"), solution)
    return _asserted(row)


def _of_rows(rows: Sequence[Mapping[str, Any]], function: str | None) -> Tests:
    """Rows of stdin and stdout, or of LiveCodeBench's input, output and testtype; `function` is what a functional one calls."""
    inputs, outputs = (
        [row.get(name, row.get(other)) for row in rows] for name, other in (("stdin", "input"), ("stdout", "output"))
    )
    if not any(row.get("testtype") == "functional" for row in rows):
        return _pairs(inputs, outputs, None)
    if function is None:
        raise RefusedError("testtype functional: wanted metadata with func_name")
    try:
        arguments = [[json.loads(line) for line in str(text).splitlines() if line.strip()] for text in inputs]
        expected = [json.loads(str(text)) for text in outputs]
    except ValueError as error:
        raise RefusedError(f"testtype functional: wanted JSON values, one per line: {error}") from error
    return _called({"fn_name": function, "inputs": arguments, "outputs": expected}, None)


def _live(row: Mapping[str, Any]) -> Tests:
    """A row of LiveCodeBench: public_test_cases, private_test_cases and metadata as JSON texts or values."""
    read_json = {name: json.loads(row[name]) if isinstance(row.get(name), str) else row.get(name) for name in _LIVE}
    rows = [case for name in _LIVE[:2] for case in read_json[name] or ()]
    if not rows or not all(isinstance(case, dict) for case in rows):
        raise RefusedError("public_test_cases: wanted a list of objects with input, output and testtype")
    metadata = read_json["metadata"]
    return _of_rows(rows, metadata.get("func_name") if isinstance(metadata, dict) else None)


def _solution(row: Mapping[str, Any]) -> str | None:
    solution = next((row[name] for name in ("canonical_solution", "solution", "code") if isinstance(row.get(name), str)), None)
    several = row.get("solutions")
    if solution is None and isinstance(several, list) and several and isinstance(several[0], str):
        return several[0]
    return solution


def _asserted(row: Mapping[str, Any]) -> Tests:
    texts: list[Any] = []
    for name in ("test", "tests", "test_list", "challenge_test_list"):
        tests = row.get(name, [])
        texts += [tests] if isinstance(tests, str) else tests if isinstance(tests, list) else [None]
    if not texts or not all(isinstance(text, str) and text.strip() for text in texts):
        raise RefusedError("wanted tests (a text or a list of texts, under test, tests or test_list), or inputs and outputs")
    solution = _solution(row)
    named = row.get("entry_point", ())
    entry_points = (named,) if isinstance(named, str) else tuple(named or ())
    if not all(isinstance(name, str) and name.isidentifier() for name in entry_points):
        raise RefusedError("entry_point: wanted the name of a function, or a list of names")
    imports = row.get("test_imports") or []
    setup = "\n".join([*(imports if isinstance(imports, list) else []), str(row.get("test_setup_code") or "")])
    if not entry_points and solution is not None:
        entry_points = _defined_and_tested(solution, texts)
    converted = convert(texts, entry_points, setup)
    prompt = row.get("prompt")
    prefix = prompt if isinstance(prompt, str) and entry_points and defines(prompt, entry_points[:1]) else ""
    if solution is not None and prefix and not defines(solution, entry_points):
        solution = f"{prefix.rstrip()}\n{solution}"
    used = tuple(name for name in entry_points if name in converted.entry_points) or tuple(sorted(converted.entry_points))
    return Tests(used, tuple(converted.calls), tuple(converted.cases), (), prefix, solution)


def _defined_and_tested(solution: str, texts: Sequence[str]) -> tuple[str, ...]:
    """The names that the reference's solution defines and the tests use; none if it is not Python of this version."""
    try:
        defined = [node.name for node in ast.parse(solution).body if isinstance(node, ast.FunctionDef | ast.ClassDef)]
        used = {name.id for text in texts for name in names_in(ast.parse(text))}
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return ()
    return tuple(name for name in defined if name in used)


def _called(row: Mapping[str, Any], solution: str | None) -> Tests:
    name, inputs, outputs = row["fn_name"], row["inputs"], row.get("outputs")
    if not name.isidentifier() or not isinstance(inputs, list) or not isinstance(outputs, list) or len(inputs) != len(outputs):
        raise RefusedError("fn_name: wanted a name, and as many outputs as inputs")
    if not all(isinstance(arguments, list) for arguments in inputs):
        raise RefusedError("inputs: with fn_name, wanted a list of arguments for every call")
    if not 0 < len(inputs) <= CASES:
        raise RefusedError(f"inputs: wanted 1 to {CASES}, found {len(inputs)}")
    calls = tuple(f"{name}({', '.join(map(literal, arguments))})" for arguments in inputs)
    cases = tuple(Case(_equals(index, expected), (index,), index + 1) for index, expected in enumerate(outputs))
    if any(len(text) > LITERAL_CHARS for text in (*calls, *map(literal, outputs))):
        raise RefusedError("inputs or outputs that are too long")
    return Tests((name,), calls, cases, (), "", solution)


def _equals(call: int, expected: Any) -> ast.expr:
    """The value of a call equals the expected one, or the only item of an expected list, as such data often has it.

    Tuples count as lists, because JSON has no tuples.
    """
    value = ast.Call(known(as_json), [ast.Name(f"${call}", ast.Load())], [])
    checks: list[ast.expr] = [ast.Compare(value, [ast.Eq()], [known(expected)])]
    if isinstance(expected, list) and len(expected) == 1:
        checks.append(ast.Compare(value, [ast.Eq()], [known(expected[0])]))
    return ast.BoolOp(ast.Or(), checks)


def _pairs(inputs: Any, outputs: Any, solution: str | None) -> Tests:
    if not isinstance(inputs, list) or not isinstance(outputs, list) or len(inputs) != len(outputs):
        raise RefusedError("wanted as many outputs as inputs, both in lists")
    if not 0 < len(inputs) <= CASES:
        raise RefusedError(f"inputs: wanted 1 to {CASES}, found {len(inputs)}")
    pairs = tuple((_text(stdin), _text(stdout)) for stdin, stdout in zip(inputs, outputs, strict=True))
    if any(len(stdin) > STDIN_CHARS or len(stdout) > STDIN_CHARS for stdin, stdout in pairs):
        raise RefusedError(f"an input or output longer than {STDIN_CHARS} characters")
    if not any(stdout.strip() for _, stdout in pairs):
        raise RefusedError("no output is expected of the program")
    return Tests(pairs=pairs, solution=solution)


def _text(value: Any) -> str:
    if isinstance(value, list) and all(isinstance(line, str) for line in value):
        return "\n".join(value) + "\n"
    if not isinstance(value, str):
        raise RefusedError(f"standard input and output: wanted text, found {type(value).__name__}")
    return value
