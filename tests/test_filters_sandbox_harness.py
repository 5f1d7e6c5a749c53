"""What comes out of the sandbox: values of calls, exceptions, standard output."""

import pytest

from filters.sandbox import Limits, Ran
from filters.sandbox.launch import Layer
from filters.sandbox.pool import Pool
from helpers.programs import run_one, value_of


def test_calls_are_answered_one_by_one(sandbox: Pool) -> None:
    """A call that raises or does not parse does not stop the next one."""
    answer = run_one(sandbox, "def f(x): return 1 / x", "f(2)", "f(0)", "f(", "g()", "f(-1)", "exit(3)", "f(4)")

    assert answer.kind == "done"
    assert [frame.value for frame in answer.frames] == [0.5, None, None, None, -1.0, None, 0.25]
    assert [frame.raised and frame.raised[0] for frame in answer.frames] == [
        None, "ZeroDivisionError", "SyntaxError", "NameError", None, "SystemExit", None,
    ]  # fmt: skip


def test_a_program_that_raises_is_not_called(sandbox: Pool) -> None:
    """Its exception is reported, without frames."""
    assert run_one(sandbox, "def f(:", "f()").failed == ("SyntaxError", "invalid syntax (solution.py, line 1)")
    assert run_one(sandbox, "raise KeyError('k')", "1") == Ran("done", failed=("KeyError", "'k'"))
    assert run_one(sandbox, "a = '\0'", "1").failed is not None
    assert run_one(sandbox, "a = '\udc80'", "1").failed is not None


def test_scripts_have_standard_input_and_output(sandbox: Pool) -> None:
    """A script runs as __main__, reads its input, and its output and exit status come back."""
    script = """
        import sys, atexit, threading
        assert __name__ == "__main__"
        atexit.register(print, "last")
        threading.Timer(0.05, print, ["later"]).start()
        print(input()[::-1], len(sys.stdin.read()))
    """
    assert run_one(sandbox, script, stdin="äb\n" + "x" * 300_000).stdout == "bä 300000\nlater\nlast\n"
    assert run_one(sandbox, "print(1); raise SystemExit(3)", stdin="") == Ran("done", stdout="1\n", failed=("SystemExit", "3"))
    assert run_one(sandbox, "import sys; print(1); sys.exit()", stdin="") == Ran("done", stdout="1\n")
    assert run_one(sandbox, "print(1); 1 / 0", stdin="").failed == ("ZeroDivisionError", "division by zero")
    assert run_one(sandbox, "import os; print(1, flush=True); os._exit(0)", stdin="") == Ran("done", stdout="1\n")
    assert run_one(sandbox, "input()", stdin="").failed == ("EOFError", "EOF when reading a line")


@pytest.mark.slow
def test_common_libraries_work(sandbox: Pool) -> None:
    """asyncio, threads, dataclasses, random and decimal behave as outside."""
    program = """
        from __future__ import annotations
        import asyncio, dataclasses, decimal, random, threading, zoneinfo, sqlite3, hashlib
        @dataclasses.dataclass
        class P:
            x: int
        async def g(x): await asyncio.sleep(0); return x
        def f():
            done = []
            threads = [threading.Thread(target=done.append, args=(i,)) for i in range(4)]
            [t.start() for t in threads]; [t.join() for t in threads]
            return [asyncio.run(g(3)), sorted(done), P(2).x, str(decimal.Decimal("1.10")), 0 <= random.random() < 1]
    """
    assert value_of(sandbox, program, "f()") == [3, [0, 1, 2, 3], 2, "1.10", True]


@pytest.mark.slow
def test_hashes_do_not_change_from_zygote_to_zygote(layer: Layer) -> None:
    """A set of strings has the same order in every zygote, so a verdict does not depend on which one ran the program."""
    texts = set()
    for _ in range(2):
        pool = Pool(layer, Limits(), 1)
        texts.add(str(value_of(pool, "def f(): return str({'a', 'b', 'c', 'd', 'e'})", "f()")))
        pool.close()
    assert len(texts) == 1


def test_types_are_named_by_what_they_are(sandbox: Pool) -> None:
    """A class of the program is named as one; a built-in exception, and one of a module that was there, as themselves."""
    program = """
        import decimal, json
        class ValueError(Exception): pass
        class Number(int):
            __class__ = property(lambda self: int)
            def __repr__(self): return "42"
        Number.__name__ = Number.__qualname__ = "int"
        def f(kind):
            raise kind("no")
    """
    calls = (
        "f(ValueError)",
        "f(__import__('builtins').ValueError)",
        "f(decimal.InvalidOperation)",
        "json.loads('{')",
        "Number(42)",
    )
    frames = run_one(sandbox, program, *calls).frames

    assert [frame.raised and frame.raised[0] for frame in frames] == [
        "solution.ValueError", "ValueError", "InvalidOperation", "JSONDecodeError", None,
    ]  # fmt: skip
    assert frames[4].value.type_name == "solution.int"


def test_random_numbers_differ_from_program_to_program(sandbox: Pool) -> None:
    """Programs are forked from one process, but not with its random state."""
    numbers = {value_of(sandbox, "import random", "random.random()") for _ in range(3)}

    assert len(numbers) == 3
