"""Writes the prompts of the shipped recipes: small task families of 16 prompts each. `--check` fails if a file is stale.

python data/prompts/make.py
"""

import json
import sys
from pathlib import Path
from typing import Any

WORDS = "apple|planet|bottle|silver|orange|red|blue|dog|sun|moon|hello|tree|book|green|car|window"

CAPITALS = (
    "France Paris|Germany Berlin|Italy Rome|Spain Madrid|Portugal Lisbon|Greece Athens|Japan Tokyo|China Beijing|Russia Moscow|"
    "Egypt Cairo|Poland Warsaw|Austria Vienna|Cuba Havana|Ireland Dublin|Sweden Stockholm|Kenya Nairobi"
)

DAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
MONTHS = [
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November", "December",
]  # fmt: skip
QUESTIONED = [*DAYS[1:], *MONTHS[:2], *MONTHS[3:-1]]
"""All days and months except those of the worked examples, and December."""

PEOPLE = (
    "Anna 31 Paris|Tom 24 London|Maria 45 Madrid|John 52 Boston|Emma 19 Berlin|Lucas 37 Rome|Sara 28 Oslo|David 63 Chicago|"
    "Julia 22 Vienna|Peter 41 Dublin|Nina 35 Prague|Mark 58 Denver|Laura 26 Milan|James 33 Sydney|Clara 47 Lisbon|Paul 29 Dallas"
)

FUNCTIONS: tuple[tuple[str, str, str, tuple[str, ...]], ...] = (
    ("double(x)", "returns x times two", "return x * 2", ("double(3) == 6", "double(-1) == -2", "double(0) == 0")),
    ("add(a, b)", "returns the sum of a and b", "return a + b", ("add(1, 2) == 3", "add(-1, 1) == 0", "add(10, 20) == 30")),
    ("subtract(a, b)", "returns a minus b", "return a - b", ("subtract(5, 3) == 2", "subtract(1, 4) == -3")),
    ("multiply(a, b)", "returns the product of a and b", "return a * b", ("multiply(3, 4) == 12", "multiply(0, 5) == 0")),
    ("is_odd(n)", "returns True if n is odd", "return n % 2 == 1", ("is_odd(3) == True", "is_odd(8) == False")),
    ("is_positive(n)", "returns True if n is above 0", "return n > 0", ("is_positive(2) == True", "is_positive(-2) == False")),
    ("cube(x)", "returns x to the power of three", "return x ** 3", ("cube(2) == 8", "cube(-3) == -27")),
    ("larger(a, b)", "returns the larger of a and b", "return max(a, b)", ("larger(1, 2) == 2", "larger(7, 3) == 7")),
    ("first(items)", "returns the first item of a list", "return items[0]", ("first([4, 5]) == 4", "first(['a']) == 'a'")),
    ("last(items)", "returns the last item of a list", "return items[-1]", ("last([4, 5]) == 5", "last(['a']) == 'a'")),
    ("length(text)", "returns the length of a text", "return len(text)", ("length('abc') == 3", "length('') == 0")),
    ("reverse(text)", "returns a text backwards", "return text[::-1]", ("reverse('abc') == 'cba'", "reverse('') == ''")),
    ("upper(text)", "returns a text in capitals", "return text.upper()", ("upper('abc') == 'ABC'", "upper('a b') == 'A B'")),
    ("total(numbers)", "returns the sum of a list", "return sum(numbers)", ("total([1, 2, 3]) == 6", "total([]) == 0")),
    ("increment(n)", "returns n plus one", "return n + 1", ("increment(1) == 2", "increment(-1) == 0")),
    ("absolute(n)", "returns the absolute value of n", "return abs(n)", ("absolute(-4) == 4", "absolute(4) == 4")),
)  # fmt: skip
"""Signature, task, right body, tests."""

MATHS: tuple[tuple[str, str, int], ...] = (
    ("A box holds 6 eggs. How many eggs are in 7 boxes?", "7 boxes of 6 eggs are 7 * 6 = 42 eggs.", 42),
    ("Anna has 15 pencils and gives away 4. How many are left?", "15 - 4 = 11 pencils are left.", 11),
    ("A train travels 60 km in one hour. How far does it travel in 3 hours?", "It travels 3 * 60 = 180 km.", 180),
    ("Tom buys 3 books for 8 dollars each. How much does he pay?", "He pays 3 * 8 = 24 dollars.", 24),
    ("A class of 28 pupils is split into groups of 4. How many groups are there?", "28 / 4 = 7 groups.", 7),
    ("A shirt costs 40 dollars and is 25% off. What is the price now?", "25% of 40 is 10, so it is 40 - 10 = 30 dollars.", 30),
    ("Sara reads 12 pages a day. How many pages does she read in a week?", "A week has 7 days: 7 * 12 = 84 pages.", 84),
    ("A farmer has 9 cows and 13 sheep. How many animals is that?", "9 + 13 = 22 animals.", 22),
    ("A bottle holds 2 litres. How many bottles are needed for 18 litres?", "18 / 2 = 9 bottles.", 9),
    ("Mia saves 5 dollars a week. How many dollars has she saved after 12 weeks?", "12 * 5 = 60 dollars.", 60),
    ("A rope of 50 m is cut into two equal parts. How long is each?", "50 / 2 = 25 m.", 25),
    ("Leo is 8 years old and his sister is twice as old. How old is she?", "Twice 8 is 2 * 8 = 16 years.", 16),
    ("A bus has 35 seats and 19 are taken. How many are free?", "35 - 19 = 16 seats are free.", 16),
    ("A baker makes 20 loaves and sells three quarters. How many are sold?", "A quarter is 20 / 4 = 5, so 3 * 5 = 15.", 15),
    ("Two friends share 36 cards equally. How many does each get?", "36 / 2 = 18 cards.", 18),
    ("A garden is 6 m wide and 9 m long. What is its area in square metres?", "6 * 9 = 54 square metres.", 54),
)
"""Question, solution and answer; the rows have the form of GSM8K's."""


def humaneval_row(number: int, signature: str, task: str, body: str, tests: tuple[str, ...]) -> dict[str, Any]:
    """Return a row in the form of HumanEval's."""
    name = signature.partition("(")[0]
    checks = "".join(f"    assert {test.replace(name, 'candidate', 1)}\n" for test in tests)
    return {
        "task_id": f"thresher/{number}",
        "prompt": f'def {signature}:\n    """{task[0].upper()}{task[1:]}."""\n',
        "canonical_solution": f"    {body}\n",
        "entry_point": name,
        "test": f"def check(candidate):\n{checks}",
    }


def code_reference(signature: str, body: str, tests: tuple[str, ...]) -> dict[str, Any]:
    """Return a reference for the filter code_tests."""
    solution = f"def {signature}:\n    {body}\n"
    return {"entry_point": signature.partition("(")[0], "tests": [f"assert {test}" for test in tests], "solution": solution}


def families() -> dict[str, list[dict[str, Any]]]:
    """Return the rows of each file, by its name without the suffix."""
    after = {name: cycle[(index + 1) % len(cycle)] for cycle in (DAYS, MONTHS) for index, name in enumerate(cycle)}
    people = [dict(zip(("name", "age", "city"), person.split(), strict=True)) for person in PEOPLE.split("|")]
    return {
        "upper": [{"text": text, "answer": text.upper()} for text in WORDS.split("|")],
        "capital": [dict(zip(("country", "answer"), pair.split(), strict=True)) for pair in CAPITALS.split("|")],
        "next": [{"kind": "day" if name in DAYS else "month", "name": name, "answer": after[name]} for name in QUESTIONED],
        "pyfunc": [
            {"signature": signature, "task": task, "answer": code_reference(signature, body, tests)}
            for signature, task, body, tests in FUNCTIONS
        ],
        "code": [humaneval_row(number, *function) for number, function in enumerate(FUNCTIONS)],
        "maths": [{"question": question, "answer": f"{steps}\n#### {answer}"} for question, steps, answer in MATHS],
        "json_record": [{**person, "answer": {**person, "age": int(person["age"])}} for person in people],
    }


def main() -> int:
    stale = []
    for name, rows in families().items():
        path = Path(__file__).with_name(f"{name}.jsonl")
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        if not path.exists() or path.read_text("utf-8") != text:
            stale.append(path)
            if "--check" not in sys.argv:
                path.write_text(text, "utf-8")
    for path in stale:
        print(f"{path} {'is stale; run this script' if '--check' in sys.argv else 'written'}")
    return 1 if stale and "--check" in sys.argv else 0


if __name__ == "__main__":
    sys.exit(main())
