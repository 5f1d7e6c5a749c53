"""Reads a reference of `code_tests`: what to ask of a program, and what must come of it.

The forms are listed in filters.code_tests. Each becomes either calls with cases or pairs of standard input and output.
"""

import ast
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from filters.code_cases import CASES, LITERAL_CHARS, Case, RefusedError, known, literal, turn
from filters.code_text import defines
from filters.code_values import as_json

STDIN_CHARS = 1_000_000


@dataclass(frozen=True, slots=True)
class Tests:
    """What a reference asks. Either `calls` and `cases`, or `pairs` of standard input and output.

    `beginning` is the program text that a completion goes on from; `solution` is a program that is right, where there is one.
    """

    entry_points: tuple[str, ...] = ()
    calls: tuple[str, ...] = ()
    cases: tuple[Case, ...] = ()
    pairs: tuple[tuple[str, str], ...] = ()
    beginning: str = ""
    solution: str | None = None


def read(reference: Any) -> Tests:
    """The tests of a reference. Raises RefusedError, whose text names what was wanted and what was found."""
    if isinstance(reference, list):
        if reference and all(isinstance(one, dict) for one in reference):
            return _pairs([one.get("stdin") for one in reference], [one.get("stdout") for one in reference], None)
        return _asserted({"tests": reference})
    if not isinstance(reference, dict):
        raise RefusedError(f"wanted a list or an object, found {type(reference).__name__}")
    row = dict(reference)
    if "input_output" in row:
        held = row["input_output"]
        try:
            row |= json.loads(held) if isinstance(held, str) else held
        except (ValueError, TypeError) as error:
            raise RefusedError(f"input_output: {error}") from error
    groups = [row[name] for name in ("public_tests", "private_tests", "generated_tests") if isinstance(row.get(name), dict)]
    if groups:
        row["inputs"] = [one for group in groups for one in group.get("input", ())]
        row["outputs"] = [one for group in groups for one in group.get("output", ())]
    if "inputs" in row:
        solution = _solution(row)
        if isinstance(row.get("fn_name"), str):
            return _called(row, solution)
        return _pairs(row["inputs"], row.get("outputs"), solution)
    return _asserted(row)


def _solution(row: Mapping[str, Any]) -> str | None:
    found = next((row[name] for name in ("canonical_solution", "solution", "code") if isinstance(row.get(name), str)), None)
    several = row.get("solutions")
    if found is None and isinstance(several, list) and several and isinstance(several[0], str):
        return several[0]
    return found


def _asserted(row: Mapping[str, Any]) -> Tests:
    texts: list[Any] = []
    for name in ("test", "tests", "test_list", "challenge_test_list"):
        held = row.get(name, [])
        texts += [held] if isinstance(held, str) else held if isinstance(held, list) else [None]
    if not texts or not all(isinstance(one, str) and one.strip() for one in texts):
        raise RefusedError("wanted tests (a text or a list of texts, under test, tests or test_list), or inputs and outputs")
    solution = _solution(row)
    named = row.get("entry_point", ())
    entry_points = (named,) if isinstance(named, str) else tuple(named or ())
    if not all(isinstance(one, str) and one.isidentifier() for one in entry_points):
        raise RefusedError("entry_point: wanted the name of a function, or a list of names")
    imports = row.get("test_imports") or []
    setup = "\n".join([*(imports if isinstance(imports, list) else []), str(row.get("test_setup_code") or "")])
    if not entry_points and solution is not None:
        entry_points = _asked(solution, texts)
    made = turn(texts, entry_points, setup)
    beginning = row.get("prompt")
    goes_on = isinstance(beginning, str) and bool(entry_points) and defines(beginning, entry_points[:1])
    beginning = str(beginning) if goes_on else ""
    if solution is not None and beginning and not defines(solution, entry_points):
        solution = f"{beginning.rstrip()}\n{solution}"
    used = tuple(name for name in entry_points if name in made.entry_points) or tuple(sorted(made.entry_points))
    return Tests(used, tuple(made.calls), tuple(made.cases), (), beginning, solution)


def _asked(solution: str, texts: Sequence[str]) -> tuple[str, ...]:
    """The names that the user's own solution defines and the tests use; none where it is not Python of this version."""
    try:
        defined = [one.name for one in ast.parse(solution).body if isinstance(one, ast.FunctionDef | ast.ClassDef)]
        used = {one.id for text in texts for one in ast.walk(ast.parse(text)) if isinstance(one, ast.Name)}
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return ()
    return tuple(name for name in defined if name in used)


def _called(row: Mapping[str, Any], solution: str | None) -> Tests:
    name, inputs, outputs = row["fn_name"], row["inputs"], row.get("outputs")
    if not name.isidentifier() or not isinstance(inputs, list) or not isinstance(outputs, list) or len(inputs) != len(outputs):
        raise RefusedError("fn_name: wanted a name, and as many outputs as inputs")
    if not all(isinstance(one, list) for one in inputs):
        raise RefusedError("inputs: with fn_name, wanted a list of arguments for every call")
    if not 0 < len(inputs) <= CASES:
        raise RefusedError(f"inputs: wanted 1 to {CASES}, found {len(inputs)}")
    calls = tuple(f"{name}({', '.join(map(literal, given))})" for given in inputs)
    cases = tuple(Case(_equals(at, wanted), (at,), at + 1) for at, wanted in enumerate(outputs))
    if any(len(one) > LITERAL_CHARS for one in (*calls, *map(literal, outputs))):
        raise RefusedError("inputs or outputs that are too long")
    return Tests((name,), calls, cases, (), "", solution)


def _equals(at: int, wanted: Any) -> ast.expr:
    """`$at` equals the wanted value, or stands in a list of one, as such data often has it. JSON knows no tuples."""
    found = ast.Call(known(as_json), [ast.Name(f"${at}", ast.Load())], [])
    checks: list[ast.expr] = [ast.Compare(found, [ast.Eq()], [known(wanted)])]
    if isinstance(wanted, list) and len(wanted) == 1:
        checks.append(ast.Compare(found, [ast.Eq()], [known(wanted[0])]))
    return ast.BoolOp(ast.Or(), checks)


def _pairs(inputs: Any, outputs: Any, solution: str | None) -> Tests:
    if not isinstance(inputs, list) or not isinstance(outputs, list) or len(inputs) != len(outputs):
        raise RefusedError("wanted as many outputs as inputs, both in lists")
    if not 0 < len(inputs) <= CASES:
        raise RefusedError(f"inputs: wanted 1 to {CASES}, found {len(inputs)}")
    pairs = tuple((_text(given), _text(wanted)) for given, wanted in zip(inputs, outputs, strict=True))
    if any(len(given) > STDIN_CHARS or len(wanted) > STDIN_CHARS for given, wanted in pairs):
        raise RefusedError(f"an input or output longer than {STDIN_CHARS} characters")
    if not any(wanted.strip() for _, wanted in pairs):
        raise RefusedError("no output is expected of the program")
    return Tests(pairs=pairs, solution=solution)


def _text(held: Any) -> str:
    if isinstance(held, list) and all(isinstance(one, str) for one in held):
        return "\n".join(held) + "\n"
    if not isinstance(held, str):
        raise RefusedError(f"standard input and output: wanted text, found {type(held).__name__}")
    return held
