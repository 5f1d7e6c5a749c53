"""What each form of a test costs: to convert it, and to judge a program by it, beside the plainest form.

python benchmarks/code_forms.py [--programs 40]

Prints the table of docs/verdicts.md: microseconds to convert a reference (once for a prompt), calls in the sandbox, and the time
to judge a program, as a ratio to that with one assertion of a call. Programs are distinct, so that each one runs.
"""

import argparse
import statistics
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from filters.code.reference import read
from filters.tools import Tools
from helpers.truth import judged

ADD = "def add(a, b):\n    return a + b"
STACK = (
    "class Stack:\n    def __init__(self):\n        self.items = []\n    def push(self, item):\n        self.items.append(item)\n"
    "    def size(self):\n        return len(self.items)"
)
FORMS: dict[str, tuple[str, Any]] = {
    "`assert f(1) == 2`": (ADD, ["assert add(1, 2) == 3"]),
    "ten of them": (ADD, [f"assert add({n}, 2) == {n + 2}" for n in range(10)]),
    "standard input and output": ("a, b = map(int, input().split())\nprint(a + b)", [{"stdin": "1 2\n", "stdout": "3\n"}]),
    "arguments and results under `fn_name`": (ADD, {"inputs": [[1, 2]], "outputs": [3], "fn_name": "add"}),
    "`class Solution`": (
        "class Solution:\n    def add(self, a, b):\n        return a + b",
        {"inputs": [[1, 2]], "outputs": [3], "fn_name": "add"},
    ),
    "HumanEval's `check(candidate)`": (
        ADD,
        {"test": "def check(candidate):\n    assert candidate(1, 2) == 3\n", "entry_point": "add", "prompt": "def add(a, b):\n"},
    ),
    "a class of unittest": (
        ADD,
        ["import unittest\nclass T(unittest.TestCase):\n    def test_add(self):\n        self.assertEqual(add(1, 2), 3)\n"],
    ),
    "`pytest.mark.parametrize`, 2 rows": (
        ADD,
        {
            "test": "import pytest\n@pytest.mark.parametrize('a,b,c', [(1, 2, 3), (4, 5, 9)])\n"
            "def test_add(a, b, c):\n    assert add(a, b) == c"
        },
    ),
    "`pytest.approx`": (ADD, ["import pytest\nassert add(0.1, 0.2) == pytest.approx(0.3)"]),
    "`np.allclose`": (ADD, ["import numpy as np\nassert np.allclose(add([0.1], [0.2]), [0.1, 0.2])"]),
    "an object and 2 of its methods": (STACK, ["s = Stack()\ns.push(1)\nassert s.size() == 1"]),
    "`next()` of a generator": (
        "def f(n):\n    yield from range(n)",
        ["g = f(3)\nassert next(g) == 0\nassert next(g) == 1"],
    ),
    "a list changed in place": ("def f(items):\n    items.sort()", ["items = [2, 1]\nf(items)\nassert items == [1, 2]"]),
    "5 random inputs": (
        ADD,
        ["import random\nfor _ in range(5):\n    a = random.randint(0, 9)\n    assert add(a, 1) == a + 1"],
    ),
}


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--programs", type=int, default=40)
    programs = parser.parse_args().programs
    print("| form | conversion, us | calls | a program, ratio |\n|---|---|---|---|")
    first = 0.0
    with Tools() as tools:
        for name, (program, reference) in FORMS.items():
            times = []
            for _ in range(20):
                started = time.perf_counter()
                tests = read(reference)
                times.append(time.perf_counter() - started)
            cases = [
                {
                    "filter": "code_tests", "params": {}, "completion": f"```python\n{program}\n# {number} {name}\n```",
                    "reference": reference,
                }
                for number in range(programs)
            ]  # fmt: skip
            judged(cases[:2], tools)
            started = time.perf_counter()
            outcomes = judged(cases, tools)
            seconds = time.perf_counter() - started
            first = first or seconds
            if outcomes != [["keep"]] * programs:
                print(f"code_forms.py: {name}: wanted keep, found {outcomes[0]}", file=sys.stderr)
                return 1
            calls = len(tests.calls) or len(tests.pairs)
            print(f"| {name} | {statistics.median(times) * 1e6:,.0f} | {calls} | {seconds / first:.2f} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
