"""Find a Python that the sandbox's user can read and start, and list the files it needs.

Candidates, in order: the base prefix of this Python; /usr/bin/python3 of the same version; a trimmed copy of this Python (no
site-packages, no test suites) below the temporary folder; /usr/bin/python3 of another version, for programs without packages.
Each candidate is started as that user, and imports the packages that the recipe names, to see whether it works. Site-packages are
never visible inside, because installed packages may hold answers to a benchmark; packages.py copies those that are named.
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

from filters.sandbox.packages import NO_PACKAGES, THREADS, Packages, make_readable, ours

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
folder, names = sys.argv[1], sys.argv[2:]
sys.path += [folder] if folder else []
for name in names: importlib.import_module(name)
kept = folder + "/" if folder else "//"
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
    "stdlib": sorted({os.path.realpath(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib")}),
    "libraries": sorted(path for path in mapped if ".so" in os.path.basename(path) and not path.startswith(kept))}))
"""


SYSTEM_PYTHON = "/usr/bin/python3"
OLDEST_VERSION = (3, 10)
"""The oldest Python that runs the modules inside the sandbox."""


class NoInterpreterError(Exception):
    """The sandbox's user can start no Python; the message lists the candidates and why each failed."""


@dataclass(frozen=True)
class Interpreter:
    """A Python for the sandbox.

    `stdlib`: folders of its standard library. `libraries`: shared objects outside these folders. `links`: symbolic links
    (path, target) by which the loader finds them. `library_path`: LD_LIBRARY_PATH, or "" where none is needed. `packages`: the
    folder of the packages that programs may import, or "".
    """

    executable: str
    version: tuple[int, int, int]
    library_path: str
    stdlib: tuple[str, ...]
    libraries: tuple[str, ...]
    links: tuple[tuple[str, str], ...]
    packages: str = ""

    def readable(self) -> list[str]:
        """List every file and folder it reads, without site-packages. Landlock cannot exclude a part of an allowed folder."""
        inner = [str(entry) for folder in self.stdlib for entry in Path(folder).iterdir() if entry.name not in _LEFT_OUT]
        added = [self.packages] if self.packages else []
        return [self.executable, *inner, *self.libraries, *added, "/usr/share/zoneinfo"]

    def masked(self) -> list[str]:
        """List the folders inside `stdlib` that must stay invisible."""
        return [
            path
            for folder in self.stdlib
            for name in ("site-packages", "dist-packages")
            if os.path.isdir(path := f"{folder}/{name}")
        ]


@lru_cache
def find(uid: int | None, packages: Packages = NO_PACKAGES) -> Interpreter:
    """Find the Python that user `uid` (None: the current user) can start, and that imports the packages. Raises
    NoInterpreterError."""
    version = sys.version_info
    tried = []
    own = f"{sys.base_prefix}/bin/python{version[0]}.{version[1]}"
    for candidate, same_version in ((own, True), (SYSTEM_PYTHON, True), (None, True), (SYSTEM_PYTHON, False)):
        path = candidate or _copied()
        probed = _probed(path, uid, packages)
        if isinstance(probed, Interpreter):
            digits = 2 if path == SYSTEM_PYTHON else 3  # core and library of a copy must have the same patch version
            if probed.version[:digits] == version[:digits] or (
                not same_version and not packages.folder and probed.version >= OLDEST_VERSION
            ):
                return probed
            probed = f"is Python {'.'.join(map(str, probed.version))}"
        tried.append(f"{path}: {probed}")
    raise NoInterpreterError("; ".join(tried))


def as_user(uid: int | None) -> dict[str, Any]:
    """Arguments of Popen that start a process as this user, without supplementary groups."""
    return {} if uid is None else {"user": uid, "group": uid, "extra_groups": ()}


def _probed(executable: str, uid: int | None, packages: Packages = NO_PACKAGES) -> Interpreter | str:
    beside = Path(executable).parent.parent / "lib"
    with contextlib.suppress(OSError):
        beside = Path(executable).resolve().parent.parent / "lib"
    library_path = str(beside) if any(beside.glob("libpython*.so*")) else ""
    try:
        completed = subprocess.run(
            [executable, "-I", "-S", "-B", "-c", _PROBE, packages.folder, *packages.imports],
            **as_user(uid),
            env={**THREADS, **({"LD_LIBRARY_PATH": library_path} if library_path else {})},
            cwd="/",
            capture_output=True,
            timeout=60,
            check=False,
        )
    except (OSError, subprocess.SubprocessError) as error:
        return str(error)
    if completed.returncode:
        return completed.stderr.decode(errors="replace").strip()[-200:] or f"exit status {completed.returncode}"
    report = json.loads(completed.stdout)
    folders = report["stdlib"]
    # lib64 may be a folder inside lib.
    stdlib = [path for path in folders if not any(path != folder and path.startswith(folder + "/") for folder in folders)]
    outside = [path for path in report["libraries"] if not any(path.startswith(folder + "/") for folder in stdlib)]
    return Interpreter(
        report["executable"],
        tuple(report["version"]),
        library_path,
        tuple(stdlib),
        tuple(outside),
        tuple(_links(outside)),
        packages.folder,
    )


def _links(libraries: list[str]) -> list[tuple[str, str]]:
    """Find symbolic links to these files, in their own folders and in those of the program loader."""
    links = []
    for folder in sorted({os.path.dirname(path) for path in libraries} | {"/lib64", "/lib"}):
        with contextlib.suppress(OSError):
            named = [entry for entry in os.scandir(folder) if entry.is_symlink() and ".so" in entry.name]
            links += [(f"{os.path.realpath(folder)}/{entry.name}", os.path.realpath(entry.path)) for entry in named]
    return sorted({(path, target) for path, target in links if target in libraries})


@lru_cache
def _copied() -> str:
    """Copy this Python without site-packages and test suites, once per machine. Returns the executable's path."""
    prefix = Path(sys.base_prefix)
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    digest = hashlib.sha256(
        f"{prefix} {sys.version} {(prefix / 'bin' / version).stat().st_mtime_ns} {os.getuid()}".encode()
    ).hexdigest()[:16]
    target = Path(tempfile.gettempdir()) / f"thresher-python-{digest}"
    executable = target / "bin" / version
    if not ours(target):
        # Built under a temporary name and renamed, so that a folder of the final name is always complete.
        copy = Path(tempfile.mkdtemp(prefix="thresher-python-", dir=target.parent))
        copy.chmod(0o755)
        (copy / "bin").mkdir(mode=0o755)
        shutil.copy2((prefix / "bin" / version).resolve(), copy / "bin" / version)
        shutil.copytree(Path(os.__file__).parent, copy / "lib" / version, ignore=_ignored, symlinks=False)
        for library in (prefix / "lib").glob("lib*.so*"):
            shutil.copy2(library, copy / "lib" / library.name)
        make_readable(copy)
        try:
            copy.rename(target)
        except OSError:
            if not ours(target):  # another user owns the name: use this copy; another process makes its own
                return str(copy / "bin" / version)
            shutil.rmtree(copy)
    return str(executable)


def _ignored(_: str, names: list[str]) -> list[str]:
    return [
        name
        for name in names
        if name in _LEFT_OUT or name.startswith("config-") or name.endswith((".a", ".opt-1.pyc", ".opt-2.pyc"))
    ]
