"""References are read, or refused with the reason."""

from typing import Any

import pytest

from filters.code.bindings import RefusedError
from filters.code.reference import read
from helpers.code_samples import HUMANEVAL, MBPP


@pytest.mark.parametrize(
    ("reference", "why"),
    [
        ("assert f(1) == 2", "wanted a list or an object"),
        ([], "wanted tests"),
        (["assert f(1) == 2", "assert f("], "not Python"),
        (["assert True"], "no assertion calls the program"),
        (["assert 1 == 2"], "false whatever the program does"),
        (["import secrets\nassert f(secrets.randbits(3)) < 1"], "secrets.randbits is not supported"),
        (["while True:\n    assert f(1)"], "While is not supported"),
        (["x = [3, 1]\nx == [3, 1]\nassert f(x)"], "whose value is not asserted"),
        (["assert f(1) == __import__('os').getpid()"], "line 1"),
        (["assert f(1) == open('/etc/passwd').read()"], "line 1"),
        (["assert f(1) == 10 ** 10 ** 10"], "too large"),
        (["for x in range(10 ** 12):\n    assert f(x)"], "too long"),
        (["import subprocess\nassert f(1) == subprocess.run(['true'])"], "line 2"),
        (["assert f(1) == (1).__class__"], "line 1"),
        ({"inputs": ["1"], "outputs": []}, "as many outputs as inputs"),
        ({"inputs": ["1"], "outputs": [""]}, "no output is expected"),
        ({"fn_name": "os.system", "inputs": [["true"]], "outputs": [0]}, "fn_name"),
        ({"input_output": "{"}, "input_output"),
    ],
)
def test_unusable_references_are_refused_with_the_reason(reference: Any, why: str) -> None:
    """The test is never executed. Its samples are undecided, and `thresher check` names the prompt."""
    with pytest.raises(RefusedError, match=why.replace("(", r"\(")):
        read(reference)


def test_no_expected_value_enters_the_sandbox() -> None:
    """Only the calls are sent."""
    tests = read(["assert f(17) == 4711", "assert 'needle' in f('hay')"])
    assert tests.calls == ("f(17)", "f('hay')")
    assert "4711" not in str(tests.calls)


def test_prompts_and_solutions_are_joined() -> None:
    """A solution that is the body only gets the prompt in front; a complete one stays as it is."""
    tests = read(HUMANEVAL)

    assert tests.entry_points == ("total",)
    assert tests.prefix == HUMANEVAL["prompt"]
    assert tests.solution == HUMANEVAL["prompt"].rstrip() + "\n" + HUMANEVAL["canonical_solution"]
    assert read(MBPP).solution == MBPP["code"]
    assert read(MBPP).entry_points == ("area",)
