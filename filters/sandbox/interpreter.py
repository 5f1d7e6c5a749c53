"""Which Python runs inside, and which files it needs: readable by the user that the sandbox runs as.

The base prefix of our own Python where that user can read it, else /usr/bin/python3 of the same version, else a trimmed copy
(no site-packages, no test suites) under the temporary folder, else /usr/bin/python3 of another version. Each is tried by starting
it as that user. Site-packages are never visible inside: what is installed may hold the answers to a benchmark.
"""

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

_LEFT_OUT = (
    "site-packages",
    "dist-packages",
    "test",
    "tests",
    "idlelib",
    "tkinter",
    "ensurepip",
    "lib2to3",
    "turtledemo",
    "pydoc_data",
)
_PROBE = """
import importlib, json, os, sys, sysconfig
folder = sysconfig.get_path("platstdlib") + "/lib-dynload"
for name in ["ctypes", "socket", "ssl", "hashlib", "sqlite3", "zlib", "lzma", "bz2", "uuid", "decimal"]:
    try: importlib.import_module(name)
    except Exception: pass
for name in os.listdir(folder) if os.path.isdir(folder) else []:
    if not name.startswith(("_tkinter", "_test", "_xx", "xx", "_curses", "readline", "_gdbm", "_dbm", "audioop", "nis",
    "ossaudio")):
        try: importlib.import_module(name.split(".")[0])
        except Exception: pass
try: __import__("ctypes").CDLL("libgcc_s.so.1")
except Exception: pass
mapped = {line.split(maxsplit=5)[5].strip() for line in open("/proc/self/maps") if line.count("/")}
print(json.dumps({"version": sys.version_info[:3], "executable": os.path.realpath(sys.executable), "prefix": sys.base_prefix,
    "stdlib": sorted({os.path.realpath(sysconfig.get_path(one)) for one in ("stdlib", "platstdlib")}),
    "libraries": sorted(one for one in mapped if ".so" in os.path.basename(one))}))
"""


SYSTEM_PYTHON = "/usr/bin/python3"
LEAST = (3, 10)
"""The oldest Python that the code inside runs on."""


class NoInterpreterError(Exception):
    """No Python that the sandbox's user can read and start; the message says what was tried."""


@dataclass(frozen=True)
class Interpreter:
    """A Python for the sandbox. `stdlib` are the folders of its standard library; `libraries` the shared objects outside of them,
    `links` the names (path, target) that the loader finds those by, `library_path` where it must be told to look ("": nowhere).
    """

    executable: str
    version: tuple[int, int, int]
    library_path: str
    stdlib: tuple[str, ...]
    libraries: tuple[str, ...]
    links: tuple[tuple[str, str], ...]

    def readable(self) -> list[str]:
        """Every file and folder that it reads, without site-packages: for rules that cannot take back a part of a folder."""
        inner = [str(one) for folder in self.stdlib for one in Path(folder).iterdir() if one.name not in _LEFT_OUT]
        return [self.executable, *inner, *self.libraries, "/usr/share/zoneinfo"]

    def masked(self) -> list[str]:
        """Folders inside of `stdlib` that must not be seen."""
        return [
            path
            for folder in self.stdlib
            for name in ("site-packages", "dist-packages")
            if os.path.isdir(path := f"{folder}/{name}")
        ]


@lru_cache
def find(uid: int | None) -> Interpreter:
    """The Python that user `uid` (None: ourselves) can start. Raises NoInterpreterError."""
    version = sys.version_info
    tried = []
    own = f"{sys.base_prefix}/bin/python{version[0]}.{version[1]}"
    for candidate, same in ((own, True), (SYSTEM_PYTHON, True), (None, True), (SYSTEM_PYTHON, False)):
        path = candidate or _copied()
        made = _probed(path, uid)
        if isinstance(made, Interpreter):
            digits = 2 if path == SYSTEM_PYTHON else 3  # a part of ours must be all ours, core and library
            if made.version[:digits] == version[:digits] or (not same and made.version >= LEAST):
                return made
            made = f"is Python {'.'.join(map(str, made.version))}"
        tried.append(f"{path}: {made}")
    raise NoInterpreterError("; ".join(tried))


def as_user(uid: int | None) -> dict[str, Any]:
    """Arguments of Popen that start a process as this user, in no other group than its own."""
    return {} if uid is None else {"user": uid, "group": uid, "extra_groups": ()}


def _probed(executable: str, uid: int | None) -> Interpreter | str:
    beside = Path(executable).parent.parent / "lib"
    with contextlib.suppress(OSError):
        beside = Path(executable).resolve().parent.parent / "lib"
    library_path = str(beside) if any(beside.glob("libpython*.so*")) else ""
    try:
        done = subprocess.run(
            [executable, "-I", "-S", "-B", "-c", _PROBE],
            **as_user(uid),
            env={"LD_LIBRARY_PATH": library_path} if library_path else {},
            cwd="/",
            capture_output=True,
            timeout=60,
            check=False,
        )
    except (OSError, subprocess.SubprocessError) as error:
        return str(error)
    if done.returncode:
        return done.stderr.decode(errors="replace").strip()[-200:] or f"exit status {done.returncode}"
    said = json.loads(done.stdout)
    stdlib = said["stdlib"]
    # lib64 may lie inside lib, or the two may be one.
    stdlib = [one for one in stdlib if not any(one != other and one.startswith(other + "/") for other in stdlib)]
    outside = [one for one in said["libraries"] if not any(one.startswith(folder + "/") for folder in stdlib)]
    return Interpreter(
        said["executable"], tuple(said["version"]), library_path, tuple(stdlib), tuple(outside), tuple(_links(outside))
    )


def _links(libraries: list[str]) -> list[tuple[str, str]]:
    """Symbolic links to these files: beside them, and where a program names its loader."""
    found = []
    for folder in sorted({os.path.dirname(one) for one in libraries} | {"/lib64", "/lib"}):
        with contextlib.suppress(OSError):
            named = [entry for entry in os.scandir(folder) if entry.is_symlink() and ".so" in entry.name]
            found += [(f"{os.path.realpath(folder)}/{entry.name}", os.path.realpath(entry.path)) for entry in named]
    return sorted({(path, target) for path, target in found if target in libraries})


@lru_cache
def _copied() -> str:
    """A copy of our own Python without what programs need not see, made once for this machine."""
    prefix = Path(sys.base_prefix)
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    mark = hashlib.sha256(
        f"{prefix} {sys.version} {(prefix / 'bin' / version).stat().st_mtime_ns} {os.getuid()}".encode()
    ).hexdigest()[:16]
    target = Path(tempfile.gettempdir()) / f"thresher-python-{mark}"
    executable = target / "bin" / version
    if not _ours(target):
        # Made under another name and renamed, so that the name stands for a whole copy.
        made = Path(tempfile.mkdtemp(prefix="thresher-python-", dir=target.parent))
        made.chmod(0o755)
        (made / "bin").mkdir(mode=0o755)
        shutil.copy2((prefix / "bin" / version).resolve(), made / "bin" / version)
        shutil.copytree(Path(os.__file__).parent, made / "lib" / version, ignore=_ignored, symlinks=False)
        for library in (prefix / "lib").glob("lib*.so*"):
            shutil.copy2(library, made / "lib" / library.name)
        opened(made)
        try:
            made.rename(target)
        except OSError:
            if not _ours(target):  # somebody else holds the name: this copy is used, and is another process's to find again
                return str(made / "bin" / version)
            shutil.rmtree(made)
    return str(executable)


def _ignored(_: str, names: list[str]) -> list[str]:
    return [
        name
        for name in names
        if name in _LEFT_OUT or name.startswith("config-") or name.endswith((".a", ".opt-1.pyc", ".opt-2.pyc"))
    ]


def opened(folder: Path) -> None:
    """Everybody may read it, nobody but its owner may write."""
    for path in [folder, *folder.rglob("*")]:
        path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)


def _ours(folder: Path) -> bool:
    """Whether this folder is our own work: a name in a shared folder may have been taken by somebody else."""
    try:
        state = folder.lstat()
    except OSError:
        return False
    return folder.is_dir() and not folder.is_symlink() and state.st_uid == os.getuid() and not state.st_mode & 0o022
