"""Packages that programs in the sandbox may import: those that a recipe names, with what they require, and nothing else.

They are those of this Python, copied once per machine and version to a folder that every user can read and only the owner can
write. The zygote imports them before its first program, so that a program pays no more than a fork for them; what they take
counts in the program's memory. A package is named as on the package index (`scikit-learn`), and a program imports its modules
(`sklearn`).
"""

import hashlib
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import Distribution, PackageNotFoundError, PackagePath, distribution
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement

THREADS = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS"), "1")
"""Environment of a sandbox with packages: the zygote forks, so none of them may start threads."""
_MODULE = re.compile(r"[A-Za-z_]\w*(?:\.py)?")


class NoPackageError(Exception):
    """A package that is named is not installed, or cannot be shown to the sandbox; the message says which and what to do."""


@dataclass(frozen=True, slots=True)
class Packages:
    """Packages in a folder that the sandbox can show. `versions`: of those named, by name. `imports`: their modules."""

    folder: str = ""
    versions: tuple[tuple[str, str], ...] = ()
    imports: tuple[str, ...] = ()


NO_PACKAGES = Packages()


def installed(names: Sequence[str]) -> dict[str, str]:
    """The versions of these packages, by the names given. Raises NoPackageError for one that is not installed here."""
    versions: dict[str, str] = {}
    for name in names:
        try:
            versions[name] = distribution(name).version
        except (PackageNotFoundError, ValueError):
            raise NoPackageError(
                f"packages: {name} is not installed; pip install {name}, or leave it out of `packages`"
            ) from None
    return versions


def modules(names: Sequence[str]) -> frozenset[str]:
    """The names of all modules that programs can import of these packages and of what they require. Raises NoPackageError."""
    return frozenset(module for item in _with_requirements(names).values() for module in _modules(item))


@lru_cache
def shown(names: tuple[str, ...]) -> Packages:
    """Copy packages and what they require into a folder for the sandbox, once per machine. Raises NoPackageError."""
    if not names:
        return NO_PACKAGES
    versions = installed(names)
    found = _with_requirements(names)
    state = [sys.version, *sorted((name, item.version, str(item.locate_file(""))) for name, item in found.items())]
    digest = hashlib.sha256(repr(state).encode())
    target = Path(tempfile.gettempdir()) / f"thresher-packages-{digest.hexdigest()[:16]}"
    if not ours(target):
        target = _copied(list(found.values()), target)
    imports = sorted({module for name in names for module in _modules(found[_normal(name)])})
    return Packages(str(target), tuple(versions.items()), tuple(imports))


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _with_requirements(names: Sequence[str]) -> dict[str, Distribution]:
    """These packages and all that they require here, by normal name; an optional one that is not installed is left out."""
    found: dict[str, Distribution] = {}
    left = list(names)
    while left:
        name = _normal(left.pop())
        if name in found:
            continue
        try:
            found[name] = distribution(name)
        except PackageNotFoundError:
            raise NoPackageError(
                f"packages: {name}, which {', '.join(names)} require, is not installed; pip install {name}"
            ) from None
        for text in found[name].requires or ():
            try:
                requirement = Requirement(text)
            except InvalidRequirement:
                continue
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                left.append(requirement.name)
    return found


def _files(item: Distribution) -> list[PackagePath]:
    """The files of a package below its folder: no scripts."""
    files = item.files
    if not files:
        raise NoPackageError(f"packages: {item.name} has no list of its files; install it with pip, not as an editable project")
    return [path for path in files if ".." not in path.parts and not path.is_absolute()]


def _modules(item: Distribution) -> set[str]:
    """The names under which programs import a package."""
    names = {path.parts[0] for path in _files(item) if path.suffix in (".py", ".so")}
    return {name.removesuffix(".py") for name in names if _MODULE.fullmatch(name)}


def _copied(found: Sequence[Distribution], target: Path) -> Path:
    """Copy the files of packages into a folder, which has its final name only when it is complete."""
    copy = Path(tempfile.mkdtemp(prefix="thresher-packages-", dir=target.parent))
    for item in found:
        for path in _files(item):
            source = Path(str(item.locate_file(path)))
            if source.is_file():
                (copy / path).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(source, copy / path)  # a compiled file is valid for the time of its source
    make_readable(copy)
    try:
        copy.rename(target)
    except OSError:
        if not ours(target):  # another user has the name
            return copy
        shutil.rmtree(copy)
    return target


def make_readable(folder: Path) -> None:
    """Let every user read the folder and its contents, and only the owner write."""
    for path in [folder, *folder.rglob("*")]:
        path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)


def ours(folder: Path) -> bool:
    """Whether the current user owns this folder and only that user can write it: the parent folder is shared."""
    try:
        state = folder.lstat()
    except OSError:
        return False
    return folder.is_dir() and not folder.is_symlink() and state.st_uid == os.getuid() and not state.st_mode & 0o022
