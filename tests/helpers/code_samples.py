# ruff: noqa: E501 - a program stays in one line
"""References of `code_tests` with their programs."""

from typing import Any

DOUBLE = "def f(x):\n    return 2 * x\n"
HUMANEVAL: dict[str, Any] = {
    "prompt": "from typing import List\n\n\ndef total(numbers: List[int]) -> int:\n    '''The sum.\n    >>> total([1])\n    1\n    '''\n",
    "canonical_solution": "    return sum(numbers)\n",
    "entry_point": "total",
    "test": "META = {'author': 'x'}\n\ndef check(candidate):\n    assert candidate([1, 2]) == 3\n    assert candidate([]) == 0, 'no'\n",
}
MBPP: dict[str, Any] = {
    "code": "import math\r\ndef area(r):\r\n  return math.pi * r ** 2",
    "test_list": ["assert math.isclose(area(1), 3.14159265, rel_tol=0.001)", "assert math.isclose(area(0), 0.0, rel_tol=0.001)"],
    "test_imports": ["import math"],
    "test_setup_code": "",
    "challenge_test_list": ["assert area(2) > 12"],
}
