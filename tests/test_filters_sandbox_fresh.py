"""Programs that run one after the other cannot tell whether the other one ran: what one marks or counts, the next does not see.

Each probe is a harmless program that leaves a mark, and an expression that would read it. The reading program runs before and
after the marking one, in the same zygote, and must return the same both times.
"""

import pytest

from filters.sandbox.launch import Layer
from filters.sandbox.pool import Pool
from helpers.programs import PROBES, run_one, value_of

NUMBERS = "from platform import machine\nARM = machine() == 'aarch64'\n"
TOOLS = f"""
{PROBES}
{NUMBERS}
import builtins, decimal, fcntl, gc, json, locale, random, resource, sys, threading
libc = ctypes.CDLL(None, use_errno=True)
def attempt(action):
    try: return action()
    except OSError as error: return error.strerror
def file(name='/tmp/file', text=''):
    with open(name, 'w') as opened: opened.write(text)
    return os.stat(name).st_ino
def child():
    pid = os.fork()
    if not pid: os._exit(0)
    os.waitpid(pid, 0)
    return pid
def thread():
    ids = []
    started = threading.Thread(target=lambda: ids.append(threading.get_native_id()))
    started.start(); started.join()
    return ids[0]
def position():
    file()
    libc.opendir.restype, libc.telldir.restype = ctypes.c_void_p, ctypes.c_long
    folder = libc.opendir(b'/tmp')
    while libc.readdir(ctypes.c_void_p(folder)): pass
    return libc.telldir(ctypes.c_void_p(folder))
def call(x86, arm, *arguments): return system_call(arm if ARM else x86, *arguments)
def lock():
    with open(os.__file__) as held: return fcntl.lockf(held, fcntl.LOCK_SH | fcntl.LOCK_NB)
def flags(*value):
    folder = os.open('/tmp', os.O_RDONLY)
    buffer = bytearray(*[bytes([value[0], 0, 0, 0])] if value else [4])
    fcntl.ioctl(folder, 0x40086602 if value else 0x80086601, buffer)
    return bytes(buffer)
def bound():
    one, other = socket.socketpair()
    one.bind(b'\\0thresher-mark')
    return one
def cached():
    with open(random.__file__, 'rb') as opened: return os.preadv(opened.fileno(), [bytearray(4096)], 0, os.RWF_NOWAIT)
"""
"""What the probes use, besides those of the self-test."""

EVERYWHERE = {
    "files": ("file(text='mark')", "attempt(lambda: sorted(os.listdir('/tmp')))"),
    "folders of shared memory": ("file('/dev/shm/mark')", "[os.path.exists(f'/dev/{name}') for name in ('shm', 'mqueue')]"),
    "working folder and mask": ("os.umask(0); os.chdir('/')", "[os.umask(0), os.getcwd()]"),
    "environment": ("os.environ['MARK'] = '1'", "sorted(os.environ), libc.getenv(b'MARK')"),
    "modules and patches": (
        "builtins.len = json.dumps = str; sys.modules['mark'] = sys",
        "len('ab'), json.dumps([1]), 'mark' in sys.modules",
    ),
    "settings of the interpreter": (
        "sys.setrecursionlimit(5000); sys.setswitchinterval(1); gc.set_threshold(7); decimal.getcontext().prec = 5",
        "sys.getrecursionlimit(), sys.getswitchinterval(), gc.get_threshold(), decimal.getcontext().prec",
    ),
    "locale": ("locale.setlocale(locale.LC_ALL, 'C')", "locale.setlocale(locale.LC_ALL)"),
    "signals": ("signal.signal(signal.SIGUSR1, signal.SIG_IGN)", "[str(signal.getsignal(number)) for number in range(1, 32)]"),
    "memory": (
        "os.write(24, b''); globals().update(kept=[str(n) for n in range(300_000)])",
        "[id(object()), sys.getallocatedblocks() < 300_000]",  # two runs without any mark may differ by three blocks of 66,000
    ),
    "heap": ("globals().update(kept=[bytes(5000) for _ in range(5000)])", "libc.sbrk(0)"),
    "hashes": ("hash('mark')", "[hash('a'), str({'a', 'b', 'c'})]"),
    "limits": ("resource.setrlimit(resource.RLIMIT_NOFILE, (30, 30))", "[resource.getrlimit(number) for number in range(16)]"),
    "priority and cores": (
        "attempt(lambda: os.nice(3)); attempt(lambda: os.sched_setaffinity(0, [0]))",
        "[os.getpriority(os.PRIO_PROCESS, 0), os.sched_getaffinity(0)]",
    ),
    "System V memory": ("call(29, 194, 77, 4096, 0o1600)", "call(29, 194, 77, 4096, 0)"),
    "System V semaphores": ("call(64, 190, 77, 1, 0o1600)", "call(64, 190, 77, 1, 0)"),
    "System V messages": ("call(68, 186, 77, 0o1600)", "call(68, 186, 77, 0)"),
    "POSIX messages": ("call(240, 180, 0, 0o102, 0o600, 0)", "call(240, 180, 0, 0, 0, 0)"),
    "keyrings": ("call(250, 219, 0, -3, 1)", "call(250, 219, 0, -4, 0)"),
    "abstract sockets": ("globals().update(kept=bound())", "bound().getsockname()"),
    "times of devices": (
        "attempt(lambda: os.utime('/dev/null'))",
        "[os.stat(f'/dev/{name}')[7:] for name in ('null', 'zero', 'urandom')]",
    ),
    "file locks": ("globals().update(kept=open(os.__file__)); fcntl.lockf(kept, fcntl.LOCK_SH)", "lock()"),
    "cached files": ("open(random.__file__).read()", "attempt(cached), call(27, 232, id(libc) & ~4095, 4096, id(libc))"),
    "attributes": ("attempt(lambda: os.setxattr('/tmp', 'user.mark', b'1'))", "attempt(lambda: os.listxattr('/tmp'))"),
    "processes left": ("daemon()", "[tried(lambda: os.kill(pid, 0)) for pid in range(3, 40)]"),
}
"""By what carries the mark: the program that leaves it, and the expression that reads it."""
IN_NAMESPACES = {
    "file numbers": ("[file(f'/tmp/{n}') for n in range(20)]", "file()"),
    "positions in a folder": ("[(file(f'/tmp/{n}'), os.unlink(f'/tmp/{n}')) for n in range(20)]", "position()"),
    "times of the folder": ("os.utime('/tmp', (9, 9))", "[time < 100 for time in os.stat('/tmp')[7:]]"),
    "age of the folder": ("time.sleep(0.6)", "time.time() - os.stat('/tmp').st_ctime > 0.55"),
    "mode of the folder": ("os.chmod('/tmp', 0o777)", "oct(os.stat('/tmp').st_mode)"),
    "flags of the folder": ("attempt(lambda: flags(0x40))", "attempt(flags)"),
    "space": ("file(text='x' * 100_000)", "[getattr(os.statvfs('/tmp'), name) for name in ('f_bfree', 'f_ffree')]"),
    "process ids": ("[child() for _ in range(20)]", "[os.getpid(), os.getppid(), os.getpgid(0), os.getsid(0), child()]"),
    "thread ids": ("[thread() for _ in range(20)]", "thread()"),
    "the supervisor's clock": ("print('x' * 900_000)", "time.clock_gettime((~1 << 3) | 2) < 0.05"),
}
"""What Landlock cannot separate (process ids), and what concerns files that no program can write there."""


@pytest.mark.slow
@pytest.mark.parametrize("probe", [*EVERYWHERE, *IN_NAMESPACES])
def test_a_program_cannot_tell_what_ran_before_it(sandbox: Pool, layer: Layer, probe: str) -> None:
    """Whatever the one before marked, and whether there was one."""
    if probe in IN_NAMESPACES and layer.name != "bwrap":
        pytest.skip("not separate, or not writable, without namespaces")
    mark, read = (EVERYWHERE | IN_NAMESPACES)[probe]
    marking, reading = f"{TOOLS}\n{mark}\n", f"{TOOLS}\ndef f(): return {read}\n"
    before = value_of(sandbox, reading, "f()")
    marked = run_one(sandbox, marking, "'done'")
    after = value_of(sandbox, reading, "f()")
    again = value_of(sandbox, reading, "f()")

    assert marked.kind == "done", marked
    assert before == after == again


def test_a_job_has_no_capability_and_no_way_to_make_namespaces(sandbox: Pool, layer: Layer) -> None:
    """The supervisor gives up the zygote's one capability, and the filter of the job refuses what the zygote's allows."""
    if layer.name != "bwrap":
        pytest.skip("no namespaces")
    program = f"""{TOOLS}
def capabilities():
    data = ctypes.create_string_buffer(24)
    libc.capget(struct.pack('=Ii', 0x20080522, 0), data)
    return data.raw
import struct
def f(): return capabilities(), call(165, 40, 0, 0, 0, 0, 0), call(126, 91, 0, 0), call(56, 220, 0x20000011, 0, 0, 0, 0)
"""
    capabilities, *calls = value_of(sandbox, program, "f()")

    assert capabilities == bytes(24)
    assert calls == ["Operation not permitted"] * 3
