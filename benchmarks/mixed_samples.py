"""Writes 10,000 mixed samples for `thresher filter`: maths, programs, JSON and prose; right, wrong and pathological.

python benchmarks/mixed_samples.py mixed.jsonl && thresher filter benchmarks/mixed.yaml --samples mixed.jsonl --out RUN

The samples are constructed, so which are right is known and is in `metadata.made` (`right`, `wrong`, or `bad` for an answer that
hangs, crashes, hedges or interferes); the audit can be compared with it. 50 of the maths answers and programs are pathological.
"""

import json
import random
import sys
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

Row = dict[str, Any]

SAMPLES = 50
"""Samples per prompt."""

BAD_MATHS = (
    "9^{9^{9^{9}}}",
    "\\binom{1000000000}{500000000}",
    "(" * 2000 + "1" + ")" * 2000,
    "\\frac{1}{" * 200 + "2" + "}" * 200,
    "1000000!",
    "\\sum_{k=1}^{10^{12}} \\frac{\\sin(k)}{k^k}",
    "\\int_0^1 x^{x^{x^{x}}} dx",
)
BAD_PROGRAMS = (
    "while True:\n    pass\n",
    "import os\nos._exit(0)\n",
    "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\ntime.sleep(600)\n",
    "x = []\nwhile True:\n    x.append('x' * 10_000_000)\n",
    "import os\nfor fd in range(3, 64):\n    try: os.write(fd, b'1' * 99)\n    except OSError: pass\nos._exit(0)\n",
    "import sys\nsys.setrecursionlimit(10**9)\ndef f(n):\n    return f(n + 1)\n\nf(0)\n",
)
FUNCTIONS = (
    ("double", "x", "x * 2", "x + 2", ("3", "10", "-4")),
    ("is_even", "n", "n % 2 == 0", "n % 2", ("4", "7", "0")),
    ("last", "xs", "xs[-1]", "xs[0]", ("[1, 2, 3]", "['a', 'b']", "[5, 6]")),
    ("reverse", "s", "s[::-1]", "s", ("'abc'", "'hello'", "'xy'")),
    ("largest", "xs", "max(xs)", "min(xs)", ("[3, 9, 2]", "[-1, -5]", "[1, 2]")),
    ("vowels", "s", "sum(c in 'aeiou' for c in s)", "len(s)", ("'banana'", "'sky'", "'queue'")),
)
NAMES = "Anna Tom Maria John Emma Lucas Sara David Julia Peter Nina Mark Laura James Clara Paul"
CITIES = "Paris London Madrid Boston Berlin Rome Oslo Chicago Vienna Dublin Prague Denver Milan Sydney Lisbon Dallas"
SENTENCES = (
    "The library opens at nine and closes when the last reader has gone home.",
    "A river that flows through three countries carries the stories of all of them.",
    "She wrote the report in the morning and sent it to the whole team after lunch.",
    "Most people who learn a language late still manage to speak it well enough.",
    "The museum keeps its oldest paintings in a room that is dark for most of the year.",
    "If the bridge is closed, the bus takes the longer road along the lake.",
)


def main(path: Path) -> None:
    draw = random.Random(0)
    rows = [*maths(draw, 60), *code(draw, 60), *records(draw, 40), *prose(draw, 40)]
    for answers, family in ((BAD_MATHS, "maths"), (BAD_PROGRAMS, "code")):
        for number, row in enumerate(draw.sample([row for row in rows if row["family"] == family], 25)):
            text = answers[number % len(answers)]
            row["completion"] = f"So it is \\boxed{{{text}}}." if family == "maths" else f"```python\n{text}```"
            row["made"] = "bad"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    print(f"{path}: {len(rows)} samples")


def maths(draw: random.Random, prompts: int) -> Iterator[Row]:
    for _ in range(prompts):
        a, b = draw.randint(2, 99), draw.randint(2, 99)
        gold = Fraction(a, b)
        forms = [f"{gold}", f"\\frac{{{gold.numerator}}}{{{gold.denominator}}}", f"\\dfrac{{{2 * a}}}{{{2 * b}}}", f"{a}/{b}"]
        if gold.denominator == 1:
            forms = [str(gold), f"{gold}.0"]
        for _ in range(SAMPLES):
            kind = draw.choice(("right", "wrong", "wrong", "bad"))
            answer = draw.choice(forms)
            if kind == "wrong":
                answer = str(gold + draw.randint(1, 9))
            text = f"Dividing {a} by {b} gives \\boxed{{{answer}}}."
            if kind == "bad":
                hedges = (
                    f"It is {answer} or {gold + 1}.",
                    f"\\boxed{{{gold}}} or perhaps \\boxed{{{gold + 1}}}",
                    "I am not sure.",
                )
                text = draw.choice(hedges)
            yield _row("maths", f"What is {a}/{b} in lowest terms? Put the answer in \\boxed{{}}.", text, str(gold), kind)


def code(draw: random.Random, prompts: int) -> Iterator[Row]:
    for number in range(prompts):
        name, argument, right, wrong, inputs = FUNCTIONS[number % len(FUNCTIONS)]
        name = f"{name}_{number}"
        tests = [f"assert {name}({value}) == {eval(f'(lambda {argument}: {right})({value})')!r}" for value in inputs]
        for _ in range(SAMPLES):
            kind = draw.choice(("right", "wrong"))
            body = right if kind == "right" else draw.choice((wrong, f"{argument} +", "None", "undefined_name"))
            comment = draw.choice(("", "    # as asked\n", f"    # take {argument} and give the answer back\n"))
            text = f"```python\ndef {name}({argument}):\n{comment}    return {body}\n```"
            yield _row("code", f"Write a Python function {name}({argument}) that returns {right}.", text, tests, kind)


def records(draw: random.Random, prompts: int) -> Iterator[Row]:
    for _ in range(prompts):
        name, age, city = draw.choice(NAMES.split()), draw.randint(18, 80), draw.choice(CITIES.split())
        gold = {"name": name, "age": age, "city": city}
        for _ in range(SAMPLES):
            kind = draw.choice(("right", "wrong"))
            value: Row = dict(gold)
            if kind == "wrong":
                value = draw.choice(({**gold, "age": str(age)}, {**gold, "age": age + 1}, {"name": name}, {**gold, "zip": 1}))
            text = json.dumps(value, indent=draw.choice((None, 1)))
            text = draw.choice((text, f"```json\n{text}\n```", f"Here it is: {text}"))
            yield _row("json", f"{name} is {age} years old and lives in {city}. As JSON.", text, gold, kind)


def prose(draw: random.Random, prompts: int) -> Iterator[Row]:
    for number in range(prompts):
        for _ in range(SAMPLES):
            kind = draw.choice(("right", "wrong"))
            sentences = draw.sample(SENTENCES, 4)
            if kind == "wrong":
                index = draw.randrange(4)
                sentences[index] = draw.choice((_noise, _letters, _glued, _loop))(draw, sentences[index])
            yield _row("prose", f"Write four plain sentences. ({number})", " ".join(sentences), None, kind)


def _noise(draw: random.Random, text: str) -> str:
    middle = len(text) // 2
    return text[:middle] + "".join(draw.choice('!"#$%&*+=?@^_|~}{<>') for _ in range(24)) + text[middle:]


def _letters(draw: random.Random, text: str) -> str:
    words = text.split()
    words[len(words) // 2] = "".join(draw.choice("bcdfghjklmnpqrstvwxz") for _ in range(16))
    return " ".join(words)


def _glued(draw: random.Random, text: str) -> str:
    return text.rstrip(".") + draw.choice(SENTENCES)


def _loop(draw: random.Random, text: str) -> str:
    return " ".join([" ".join(text.split()[:4])] * draw.randint(6, 9))


def _row(family: str, prompt: str, completion: str, reference: Any, made: str) -> Row:
    return {"family": family, "prompt": prompt, "completion": completion, "reference": reference, "made": made}


if __name__ == "__main__":
    main(Path(sys.argv[1]))
