"""The program of a completion."""

import pytest

from filters.code.text import defines, fenced, program_of
from helpers.code_samples import DOUBLE


@pytest.mark.parametrize(
    ("completion", "program"),
    [
        (f"Sure:\n```python\n{DOUBLE}```\nDone.", DOUBLE),
        (f"```py\n{DOUBLE}```", DOUBLE),
        (f"```\n{DOUBLE}```", DOUBLE),
        (DOUBLE, DOUBLE),
        (f"```python\n{DOUBLE}```\nUse:\n```python\nprint(f(2))\n```\n", DOUBLE),
        (f"```bash\npip install x\n```\n```python\n{DOUBLE}```", DOUBLE),
        (f"```python\r\n{DOUBLE}```".replace("\n", "\r\n").replace("\r\r", "\r"), DOUBLE),
        (f"```python\n{DOUBLE}", None),
        (f"```python\n{DOUBLE}```\nOr:\n```python\ndef f(x): return x + x\n```", None),
        ("The function doubles its argument.", None),
        ("```json\n{}\n```", None),
        ("", None),
        ("```python\n```", None),
    ],
)
def test_one_rule_extracts_the_program(completion: str, program: str | None) -> None:
    """A single candidate, or none."""
    assert program_of(completion, ["f"]) == program


def test_a_fence_is_longer_than_those_inside() -> None:
    program = "TEXT = '''\n```\n'''\n"

    assert fenced(program).startswith("````python\n")
    assert program_of(fenced(program), ["TEXT"]) == program


def test_names_are_defined_at_the_left_margin() -> None:
    assert defines("async def f(): pass\nclass G: pass\nh = 1", ["f", "G", "h"])
    assert not defines("if True:\n    def f(): pass", ["f"])
