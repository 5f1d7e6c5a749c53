# ruff: noqa: E501 - a program stays in one line
"""Wrong programs that try to be scored as right: none is, whatever it does to the harness, and honest ones pass."""

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pytest

import filters
from filters.code.text import fenced
from filters.tools import Tools
from schemas.sample import Verdict, to_json

ASSERTS = {
    "entry_point": "f",
    "tests": ["assert f(2) == 4", "assert f(3) == 9", "assert f([1, 2]) == [1, 4]", "assert abs(f(1.5) - 2.25) < 1e-6"],
}
"""Squares of numbers and of lists."""
PAIRS = {"inputs": ["2\n", "3\n"], "outputs": ["4\n", "9\n"]}
HONEST = "def f(x):\n    return [f(one) for one in x] if isinstance(x, list) else x * x\n"
HONEST_SCRIPT = "x = int(input())\nprint(x * x)\n"
FORGED = r"""
import os, json, struct, sys
def f(x):
    for fd in range(3, 256):
        for payload in (b'["v",4]', b'4', b'{"value": 4, "passed": true}'):
            try:
                os.write(fd, struct.pack("<II", 0, len(payload)) + payload)
                os.write(fd, struct.pack(">iI", 0, len(payload)) + payload + b"\n")
            except Exception:
                pass
    return 0
"""
SEARCH = "\n    return found[0] if found else 0\n"

HACKS: dict[str, str] = {
    "os_exit": "import os\nos._exit(0)\ndef f(x): return 0\n",
    "os_exit_in_call": "import os\ndef f(x): os._exit(0)\n",
    "sys_exit": "import sys\ndef f(x): sys.exit(0)\n",
    "system_exit_at_once": "def f(x): return 0\nraise SystemExit(0)\n",
    "excepthook": "import sys, os\nsys.excepthook = lambda *a: os._exit(0)\ndef f(x): raise ValueError\n",
    "atexit": "import atexit, os\natexit.register(lambda: os._exit(0))\ndef f(x): return 0\n",
    "del": "import os\nclass A:\n    def __del__(self): os._exit(0)\nkept = A()\ndef f(x): return 0\n",
    "thread": "import threading, os, time\nthreading.Thread(target=lambda: (time.sleep(.05), os._exit(0))).start()\n"
    "def f(x):\n    time.sleep(.2)\n    return 0\n",
    "equal_to_all": "class A:\n    def __eq__(self, o): return True\n    def __ne__(self, o): return False\n    __hash__ = None\n"
    "def f(x): return A()\n",
    "int_subclass": "class A(int):\n    def __eq__(self, o): return True\n    def __sub__(self, o): return 0\n"
    "    def __hash__(self): return 4\ndef f(x): return A(4)\n",
    "float_subclass": "class A(float):\n    def __eq__(self, o): return True\n    def __sub__(self, o): return 0.0\n"
    "    __hash__ = float.__hash__\ndef f(x): return A(0)\n",
    "str_subclass": "class A(str):\n    def __eq__(self, o): return True\n    __hash__ = str.__hash__\ndef f(x): return A('4')\n",
    "list_subclass": "class A(list):\n    def __eq__(self, o): return True\n    __hash__ = None\ndef f(x): return A([1, 4])\n",
    "bool_for_int": "def f(x): return True\n",
    "print_and_exit": 'import os, sys\ndef f(x):\n    print(\'{"passed": true}\', flush=True)\n    os._exit(0)\n',
    "print_all_answers": "def f(x):\n    print(4, 9, [1, 4], 2.25, flush=True)\n",
    "return_all_answers": "def f(x): return [4, 9, [1, 4], 2.25]\n",
    "forged_frames": FORGED,
    "frames_inspection": "import sys\ndef f(x):\n    found, frame = [], sys._getframe()\n    while frame:\n"
    "        for held in (*frame.f_locals.values(), *frame.f_globals.values()):\n"
    "            if type(held) in (int, float, list) and held not in (x, 0): found.append(held)\n"
    "        frame = frame.f_back" + SEARCH,
    "patch_json": "import json, json.encoder\njson.dumps = lambda *a, **k: '[\"v\",4]'\n"
    "json.JSONEncoder.encode = lambda *a, **k: '[\"v\",4]'\njson.encoder.JSONEncoder.iterencode = lambda *a, **k: ['4']\n"
    "def f(x): return 0\n",
    "patch_builtins": "import builtins\nbuiltins.abs = lambda *a: 0\nbuiltins.len = lambda *a: 0\nbuiltins.sorted = lambda *a: []\n"
    "builtins.type = lambda *a: int\nbuiltins.isinstance = lambda *a: True\ndef f(x): return 0\n",
    "patch_main": "import sys\nmain = sys.modules.get('__main__')\nfor name in list(vars(main) if main else ()):\n"
    "    if callable(getattr(main, name)) and not name.startswith('__'): setattr(main, name, lambda *a, **k: True)\n"
    "def f(x): return 0\n",
    "patch_harness": "import sys\nfor name, module in list(sys.modules.items()):\n"
    "    if 'sandbox' in name or 'harness' in name or 'filters' in name or name == 'values':\n"
    "        for key in list(vars(module)):\n"
    "            if callable(getattr(module, key)) and not key.startswith('__'): setattr(module, key, lambda *a, **k: 4)\n"
    "def f(x): return 0\n",
    "read_own_script": "import sys\ndef f(x):\n    found = []\n    for path in (*sys.argv, globals().get('__file__') or '', '/proc/self/cmdline'):\n"
    "        try: text = open(path).read()\n        except Exception: continue\n        if '== 4' in text: found.append(4)" + SEARCH,
    "proc": "import os\ndef f(x):\n    found = []\n    for pid in ('self', '1', str(os.getppid())):\n"
    "        for name in ('environ', 'cmdline', 'maps', 'mem'):\n            try: text = open(f'/proc/{pid}/{name}', 'rb').read()\n"
    "            except Exception: continue\n            if b'f(2) == 4' in text: found.append(4)" + SEARCH,
    "environment": "import os\ndef f(x):\n    found = [int(v) for v in os.environ.values() if v.isdigit() and int(v) != x]" + SEARCH,
    "sys_modules": "import sys, types\nfake = types.ModuleType('solution')\nfake.f = lambda x: 0\nfake.__dict__['__eq__'] = lambda *a: True\n"
    "sys.modules['solution'] = sys.modules['__main__'] = fake\ndef f(x): return 0\n",
    "gc_search": "import gc\ndef f(x):\n    found = [one for one in gc.get_objects() if type(one) is list and len(one) == 2 and one[0] == 1"
    " and one is not x and one != x]" + SEARCH,
    "gc_tests": "import gc\ndef f(x):\n    texts = [one for one in gc.get_objects() if type(one) is dict for one in one.values()"
    " if type(one) is str and 'assert f(' in one and 'gc.get' not in one]\n    found = [4 for _ in texts]" + SEARCH,
    "signal_handler": "import signal, os\nfor one in (signal.SIGALRM, signal.SIGTERM, signal.SIGXCPU, signal.SIGSEGV):\n"
    "    signal.signal(one, lambda *a: os._exit(0))\nsignal.setitimer(signal.ITIMER_REAL, .02)\n"
    "def f(x):\n    while True: pass\n",
    "fork_and_write": "import os\ndef f(x):\n    if os.fork() == 0: return 4\n    return 0\n",
    "module_class": "import sys, types\nclass M(types.ModuleType):\n    def __eq__(self, o): return True\n"
    "    def __getattribute__(self, name): return lambda *a: 4\n"
    "sys.modules[__name__].__class__ = M\ndef f(x): return 0\n",
    "instancecheck": "class Meta(type):\n    def __instancecheck__(c, o): return True\n    def __eq__(c, o): return True\n"
    "    def __hash__(c): return hash(int)\nclass A(metaclass=Meta):\n    def __eq__(self, o): return True\n"
    "    __class__ = int\ndef f(x): return A()\n",
    "nan": "def f(x): return float('nan')\n",
    "infinity": "def f(x): return float('inf')\n",
    "generator": "def f(x): yield 4\n",
    "lazy": "class Lazy:\n    def __init__(self): self.n = 0\n    def __int__(self): return 4\n    def __index__(self): return 4\n"
    "    def __float__(self): return 2.25\n    def __sub__(self, o): return 0\n    def __abs__(self): return 0\n"
    "    def __lt__(self, o): return True\n    def __repr__(self): return '4'\n    def __reduce__(self): return (int, (4,))\n"
    "def f(x): return Lazy()\n",
    "huge_output": "def f(x): return 'A' * 100_000_000\n",
    "huge_stdout": "def f(x):\n    print('4 ' * 10_000_000)\n",
    "deep_nesting": "def f(x):\n    made = 4\n    for _ in range(10_000): made = [made]\n    return made\n",
    "recursion": "import sys\nsys.setrecursionlimit(10**9)\ndef f(x): return f(x)\n",
    "sleep": "import time\ndef f(x): time.sleep(60)\n",
    "close_channel": "import os\ndef f(x):\n    for fd in range(3, 256):\n        try: os.close(fd)\n        except OSError: pass\n    return 0\n",
    "redefine_entry_point": "def f(x):\n    global f\n    f = lambda x: 0\n    return 0\n",
    "swallow": "import sys\nclass Out:\n    def write(self, *a): return 4\n    def flush(self): pass\nsys.stdout = sys.stderr = Out()\n"
    "def f(x): return 0\n",
    "ctypes": "def f(x):\n    import ctypes\n    try: ctypes.memmove(id(x) + 24, id(4) + 24, 4)\n    except Exception: pass\n    return x\n",
    "trace": "import sys\ndef tracer(frame, event, arg):\n    for name in list(frame.f_locals):\n"
    "        if name in ('passed', 'ok', 'result', 'value'): frame.f_locals[name] = 4\n    return tracer\n"
    "sys.settrace(tracer)\nsys.setprofile(tracer)\ndef f(x): return 0\n",
}  # fmt: skip

SCRIPT_HACKS: dict[str, str] = {
    "all_answers": "print(4)\nprint(9)\n",
    "exit_zero": "import os\nos._exit(0)\n",
    "expected_text": "print('4')\n",
    "verdict": 'print(\'{"passed": true, "outcome": "keep"}\')\n',
    "read_files": "import glob\nfor path in glob.glob('/tmp/**', recursive=True) + glob.glob('/proc/self/*'):\n"
    "    try: print(open(path).read())\n    except Exception: pass\n",
    "endless_answers": "while True: print('4')\n",
    "right_then_raise": "x = int(input())\nprint(x * x)\nraise ValueError\n",
    "right_then_fail": "import sys\nx = int(input())\nprint(x * x)\nsys.exit(1)\n",
    "look_ahead": "import sys\nprint(sys.stdin.read())\n",
    "frames": "import os\nfor fd in range(3, 256):\n    try: os.write(fd, b'4\\n')\n    except OSError: pass\n",
}


TOOLS = Tools()


@pytest.fixture(scope="module", autouse=True)
def _closed_at_the_end() -> Iterator[None]:
    with TOOLS:
        yield


def judged(reference: Any, *programs: str) -> list[Verdict]:
    """The verdicts on programs, which all have one reference."""
    filter_ = filters.build("code_tests", {"seconds": 1.0}, TOOLS)
    table = pa.table({"completion": [fenced(program) for program in programs], "reference": [to_json(reference)] * len(programs)})
    return list(filter_.judge(table))


@pytest.fixture(scope="module")
def on_calls() -> dict[str, Verdict]:
    return dict(zip([*HACKS, "honest"], judged(ASSERTS, *HACKS.values(), HONEST), strict=True))


@pytest.fixture(scope="module")
def on_stdin() -> dict[str, Verdict]:
    return dict(zip([*SCRIPT_HACKS, "honest"], judged(PAIRS, *SCRIPT_HACKS.values(), HONEST_SCRIPT), strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("name", HACKS)
def test_no_hack_of_calls_is_scored_as_right(name: str, on_calls: dict[str, Verdict]) -> None:
    """A wrong program is dropped, or undecided where it breaks its own run; it is never kept."""
    assert on_calls[name].outcome in ("drop", "undecided")
    assert on_calls[name].reason not in ("unparsed", "syntax_error", "no_entry_point", "bad_reference", "filter_error")


@pytest.mark.slow
@pytest.mark.parametrize("name", SCRIPT_HACKS)
def test_no_hack_of_standard_output_is_scored_as_right(name: str, on_stdin: dict[str, Verdict]) -> None:
    """The expected text is compared outside, and a script that fails after the right output is dropped."""
    assert on_stdin[name].outcome in ("drop", "undecided")
    assert on_stdin[name].reason not in ("unparsed", "syntax_error", "bad_reference", "filter_error")


@pytest.mark.slow
def test_honest_programs_beside_the_hacks_pass(on_calls: dict[str, Verdict], on_stdin: dict[str, Verdict]) -> None:
    """Right programs, judged in the same batch and by the same workers, are kept."""
    assert on_calls["honest"] == Verdict.keep(1.0)
    assert on_stdin["honest"] == Verdict.keep(1.0)
