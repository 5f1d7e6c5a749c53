"""Tests of unittest and pytest as plain statements."""

import ast
from typing import NoReturn

import pytest

from filters.code.testing import asserted, methods_of, of_module, parameters_of, refuse_marks


def call(text: str) -> ast.Call:
    node = ast.parse(text, mode="eval").body
    assert isinstance(node, ast.Call)
    return node


@pytest.mark.parametrize(
    ("method", "statement"),
    [
        ("self.assertEqual(f(1), 2)", "assert f(1) == 2"),
        ("self.assertNotIn(f(1), [2], 'why')", "assert f(1) not in [2]"),
        ("self.assertTrue(f(1))", "assert f(1)"),
        ("self.assertFalse(f(1))", "assert not f(1)"),
        ("self.assertIsNone(f(1))", "assert f(1) is None"),
        ("self.assertIsInstance(f(1), int)", "assert isinstance(f(1), int)"),
        ("self.assertCountEqual(f(1), [2, 1])", "assert sorted(f(1)) == sorted([2, 1])"),
        ("self.assertAlmostEqual(f(1), 0.3)", "assert round(abs(f(1) - 0.3), 7) == 0"),
        ("self.assertAlmostEqual(f(1), 0.3, delta=0.1)", "assert abs(f(1) - 0.3) <= 0.1"),
        ("self.assertRaises(ValueError, f, 1)", "with self.assertRaises(ValueError):\n    f(1)"),
    ],
)
def test_a_method_of_a_test_case_is_a_statement(method: str, statement: str) -> None:
    made = asserted(call(method))

    assert made is not None
    assert ast.unparse(made) == statement


@pytest.mark.parametrize("text", ["f(1)", "self.other(1)", "other.assertEqual(1, 2)", "self.assertEqual(1)"])
def test_other_calls_are_none(text: str) -> None:
    assert asserted(call(text)) is None


def test_a_class_gives_the_statements_of_each_test_after_its_set_up() -> None:
    text = (
        "class T(unittest.TestCase):\n def setUp(self): self.n = 1\n"
        " def test_a(self): self.assertEqual(self.n, 1)\n def help(self): pass"
    )
    [node] = ast.parse(text).body
    assert isinstance(node, ast.ClassDef)

    def refuse(why: str) -> NoReturn:
        raise ValueError(why)

    [body] = methods_of(node, refuse)
    assert [ast.unparse(part) for part in body] == ["self_n = 1", "self.assertEqual(self_n, 1)"]
    [other] = ast.parse("class Helper: pass").body
    assert isinstance(other, ast.ClassDef)
    with pytest.raises(ValueError, match="the class Helper of the test is not supported"):
        list(methods_of(other, refuse))


@pytest.mark.parametrize(
    ("decorators", "runs"),
    [
        ("", []),
        ("@pytest.mark.parametrize('a,b', [(1, 2), pytest.param(3, 4, id='x')])\n", [[1, 2], [3, 4]]),
        ("@pytest.mark.parametrize('a', [1, 2])\n@pytest.mark.parametrize('b', [3])\n", [[1, 3], [2, 3]]),
        ("@pytest.mark.parametrize('a', [1])\n", []),
    ],
)
def test_a_function_runs_once_for_each_of_its_parameters(decorators: str, runs: list[list[int]]) -> None:
    [node] = ast.parse(f"{decorators}def test_f(a, b): pass").body
    assert isinstance(node, ast.FunctionDef)

    assert parameters_of(node, ast.literal_eval) == runs


def test_the_module_of_the_program_is_no_module() -> None:
    body = of_module(ast.parse("import solution as s\nimport math\nassert s.f(1) == math.pi").body, ("solution",))

    assert [ast.unparse(node) for node in body] == ["import math", "assert f(1) == math.pi"]


@pytest.mark.parametrize(
    ("decorator", "refused"),
    [
        ("pytest.mark.parametrize('a', [1, pytest.param(2, id='two')])", False),
        ("pytest.mark.parametrize('a', [1, pytest.param(2, marks=pytest.mark.xfail)])", True),
        ("pytest.mark.skip", True),
        ("unittest.expectedFailure", True),
    ],
)
def test_a_test_that_may_not_count_is_refused(decorator: str, refused: bool) -> None:
    node = ast.parse(f"@{decorator}\ndef test_f(a): pass").body[0]
    assert isinstance(node, ast.FunctionDef)
    said: list[str] = []

    def refuse(why: str) -> NoReturn:
        said.append(why)
        raise ValueError(why)

    if refused:
        with pytest.raises(ValueError, match="is not supported"):
            refuse_marks(node, refuse)
    else:
        refuse_marks(node, refuse)
    assert bool(said) is refused
