"""What a program may not do in either layer, and how a hostile program ends."""

import textwrap
import time

import pytest

from filters.sandbox.launch import Layer, descendants
from filters.sandbox.pool import Pool
from helpers.programs import PROBES, run_one, still_works, value_of


def test_no_descriptor_is_inherited(sandbox: Pool) -> None:
    """A program has its standard descriptors and the channel of its values, and no others."""
    program = """
        import os
        def f():
            found = []
            for fd in range(300):
                try: os.fstat(fd)
                except OSError: continue
                found.append(fd)
            return found
    """
    assert value_of(sandbox, program, "f()") == [0, 1, 2, 24]


def test_installed_packages_are_not_visible(sandbox: Pool) -> None:
    """Only the standard library can be imported."""
    program = "import importlib.util as u\ndef f(): return [u.find_spec(n) is None for n in ('pip', 'filters', 'pydantic')]"
    assert value_of(sandbox, program, "f()") == [True, True, True]


@pytest.mark.slow
def test_a_file_has_a_limit(sandbox: Pool, layer: Layer) -> None:
    """A file may have 16 MiB; under Landlock no file can be written."""
    wanted = f"{PROBES}\nsignal.signal(signal.SIGXFSZ, signal.SIG_IGN)"
    assert value_of(sandbox, wanted, "one_file('/tmp/x', 24)") == (16 if layer.name == "bwrap" else 0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("program", "kind"),
    [
        ("while True: pass", "timeout"),
        ("import signal\nfor n in range(1, 65):\n  try: signal.signal(n, 1)\n  except OSError: 0\nwhile 1: 0", "timeout"),
        ("import threading, time\nthreading.Thread(target=time.sleep, args=(60,)).start()\ntime.sleep(60)", "timeout"),
        ("import os\nwhile True:\n  try: os.fork()\n  except OSError: pass", "timeout"),
        ("import os\nos._exit(0)", "crash"),
        ("import os\nos.abort()", "crash"),
        ("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)", "crash"),
        ("import ctypes\nctypes.string_at(0)", "crash"),
        ("import os\nos.closerange(0, 1000)", "tampering"),
        ("import os\nfor fd in range(3, 64):\n  try: os.write(fd, b'garbage' * 9)\n  except OSError: pass", "tampering"),
        ("import os, struct\nwhile True: os.write(24, struct.pack('>II', 0, 9) + b'[\"v\", 1 ]')", "tampering"),
        ("import os, struct\nfor i in 0, 0: os.write(24, struct.pack('>II', i, 7) + b'[\"v\",1]')", "tampering"),
        ("import os, struct\nos.write(24, struct.pack('>II', 0xFFFFFFFE, 0))", "tampering"),
        ("import os, struct\nos.write(24, struct.pack('>II', 0, 1 << 30))\nos._exit(0)", "tampering"),
        ("import os, struct\nos.write(24, struct.pack('>II', 0, 9) + b'[' * 9)\nos._exit(0)", "tampering"),
    ],
    ids=["busy", "deaf", "threads", "forks", "exit", "abort", "kill", "segfault", "closed", "garbage", "flood", "twice",
         "early end", "long", "not json"],
)  # fmt: skip
def test_a_hostile_program_ends_with_its_kind(sandbox: Pool, program: str, kind: str) -> None:
    """Each ends in bounded time, with its kind, and the next program is not affected."""
    started = time.monotonic()
    answer = run_one(sandbox, program, "1", seconds=0.3)

    assert answer.kind == kind, answer
    assert time.monotonic() - started < 5
    assert still_works(sandbox)


@pytest.mark.slow
def test_a_flood_of_output_is_cut(sandbox: Pool) -> None:
    """300 MB on standard output are cut at 1 MiB, without delay."""
    started = time.monotonic()
    answer = run_one(sandbox, "import sys\nfor _ in range(300): sys.stdout.write('x' * 1_000_000)", stdin="")

    assert (answer.kind, answer.stdout_cut, len(answer.stdout)) == ("done", True, 1 << 20)
    assert time.monotonic() - started < 2


@pytest.mark.slow
def test_deep_recursion_is_the_programs_own_failure(sandbox: Pool) -> None:
    """Endless recursion raises or crashes, and does not affect the zygote."""
    assert run_one(sandbox, "def f(x): return f(x + 1)", "f(0)").frames[0].raised == (
        "RecursionError",
        "maximum recursion depth exceeded",
    )
    deep = """
        import sys
        sys.setrecursionlimit(10**9)
        class A:
            def __repr__(self): return repr([self])
        def f(): return len(repr(A()))
    """
    assert run_one(sandbox, deep, "f()").kind in {"crash", "done"}
    assert still_works(sandbox)


@pytest.mark.slow
def test_memory_has_a_limit(sandbox: Pool) -> None:
    """An endless list is a MemoryError of the program."""
    answer = run_one(sandbox, "def f(): return len([bytes(1 << 24) for _ in range(200)])", "f()")
    assert answer.frames[0].raised is not None
    assert answer.frames[0].raised[0] == "MemoryError"


@pytest.mark.slow
def test_nothing_is_left_for_the_next_program(sandbox: Pool, layer: Layer) -> None:
    """Files, deep and forbidden folders, processes, modules and patches are gone when the next program starts."""
    hostile = """
        import builtins, json, os, sys, time
        builtins.len = json.dumps = os.write = lambda *a: 0
        sys.modules["left"] = sys
        if os.fork() == 0:
            time.sleep(60)
        try:
            os.makedirs("/tmp/a/b/c"); os.chmod("/tmp/a/b", 0); open("/tmp/file", "w").write("left"); os.symlink("/", "/tmp/link")
            os.chdir("/tmp")
            for _ in range(400): os.mkdir("d" * 200); os.chdir("d" * 200)
        except OSError: pass
    """
    assert run_one(sandbox, hostile, "'left' * 2").kind != "error"
    program = f"{PROBES}\n" + textwrap.dedent("""
        import gc, sys
        def memory():
            found, frame = gc.get_objects(), sys._getframe(1)
            while frame := frame.f_back:
                found += frame.f_locals.values()
            return sum("".join(["le", "ft"] * 2) in repr(one) for one in found if type(one) in (bytes, str, tuple))
        def f(): return [len('ab'), 'left' in sys.modules, listing('/tmp')], memory()
    """)
    assert value_of(sandbox, program, "f()") == ([2, False, []], 0)
    waiting = 2  # supervisors of the next jobs
    deadline = time.monotonic() + 5
    for pid in sandbox.pids():
        while len(descendants(pid)) != (expected := waiting + (layer.name == "bwrap")) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert len(descendants(pid)) == expected
