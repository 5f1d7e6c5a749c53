"""Files that survive a power cut, and files that exactly one of several writers can create."""

import errno
import os
import re
import secrets
import shutil
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from hashlib import sha256
from itertools import takewhile
from pathlib import Path
from typing import IO, Any

from fsspec.core import has_magic
from fsspec.implementations.local import LocalFileSystem

LEFTOVER_S = 3600.0
"""Age in seconds at which a temporary file is taken for one of a writer that was killed, where its writer cannot be asked for."""
LIVING_S = 7 * 86400.0
"""The same for a folder, by the newest file in it; and where a process has the number of its writer, which may be another one."""
_TEMPORARY = re.compile(r"\..*\.(?P<pid>\d+)-[0-9a-f]{8}(?:@(?P<machine>.+))?\.tmp")
"""Temporary names: of this version, and of earlier ones, which had a host or none."""
NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)
"""Errors of disks that have no hard links, such as exFAT."""
CREATING = ("s3fs", "gcsfs", "adlfs", "fsspec.implementations.memory")
"""Packages of fsspec clients that create a file on the condition that none exists (S3: If-None-Match, Google: ifGenerationMatch,
Azure: overwrite=False). fsspec's own fallback asks whether the file exists and then writes, so two writers may both succeed."""


def sync(path: str | Path) -> None:
    """Flush a file, or the names in a directory, to the disk. A rename lasts once its directory is synced."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_names(folder: str | Path) -> None:
    """Sync a folder, unless it may not be read: then it cannot be opened, which a sync has to."""
    with suppress(PermissionError, FileNotFoundError):
        sync(folder)


def make_folders(path: str | Path, fs: Any = None) -> None:
    """Create a folder and those above it, unless they exist, on a file system of fsspec or a local one. The names of new local
    ones are on the disk, the outermost first."""
    if fs is not None and not isinstance(fs, LocalFileSystem):
        fs.makedirs(path, exist_ok=True)
        return
    path = Path(path)
    if path.is_dir():
        return
    make_folders(path.parent)
    path.mkdir(exist_ok=True)
    sync_names(path.parent)


@cache
def machine() -> str:
    """Names this start of this machine, and the name space of its process ids; empty where the system does not tell. Neither
    changes while a process lives."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{os.stat('/proc/self/ns/pid').st_ino}"
    except OSError:
        return ""


def machine_id() -> str:
    """The same for names of files, in 16 hexadecimal digits: only processes that see each other have the same one. Machines and
    containers may share a host name."""
    name = machine()
    return sha256(f"{name}/{socket.gethostname()}".encode()).hexdigest()[:16] if name else ""


def temporary_name(path: str | Path) -> Path:
    """Return a name beside a file that no other writer uses, on this machine or another, and that tells who does."""
    path, here = Path(path), machine_id()
    return path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}{here and '@'}{here}.tmp")


def is_left(path: Path) -> bool:
    """Whether a path is a temporary name whose writer was a process of this machine that has ended; or that nobody has written
    for LEFTOVER_S or LIVING_S."""
    name = _TEMPORARY.fullmatch(path.name)
    if name is None:
        return False
    if has_ended(name["machine"], int(name["pid"])):
        return True
    is_folder = path.is_dir() and not path.is_symlink()
    after_s = LIVING_S if is_folder or name["machine"] == machine_id() else LEFTOVER_S
    try:
        return _newest(path) < time.time() - after_s
    except OSError:  # removed by another
        return False


def _newest(path: Path) -> float:
    """When a file, or anything in a folder, was last written, in seconds since 1970."""
    newest = path.lstat().st_mtime
    for inside, folders, files in os.walk(path):
        newest = max([newest, *(os.lstat(os.path.join(inside, name)).st_mtime for name in (*folders, *files))])
    return newest


def has_ended(of_machine: str | None, pid: int) -> bool:
    """Whether a process is one that this machine would see (`machine_id`), and has ended."""
    if not of_machine or of_machine != machine_id():
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except (PermissionError, OverflowError):
        return False
    return False


@contextmanager
def temporary_folder(path: str | Path) -> Iterator[Path]:
    """An empty folder beside a path, under a temporary name; removed at the end."""
    folder = temporary_name(path)
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def place_folder(folder: Path, path: str | Path) -> None:
    """Rename a finished folder once all in it is on the disk. Raises OSError where `path` is a folder that holds files."""
    for inside, _, files in os.walk(folder):
        for name in files:
            sync(Path(inside, name))
        sync(inside)
    folder.rename(path)
    sync(Path(path).parent)


@contextmanager
def replacing(path: str | Path, *, durable: bool = True, check: Callable[[], object] = lambda: None) -> Iterator[IO[bytes]]:
    """A new file, open for reading and writing, that takes the place of `path` when the block ends: readers see the old content
    or the new one. `check` is called right before; after an error, also of `check`, the old file stays. Raises OSError. Without
    `durable` nothing is flushed, and a power cut may lose the file or its content."""
    path, temporary = Path(path), temporary_name(path)
    try:
        file = temporary.open("xb+")
        try:
            yield file
        except BaseException:
            with suppress(OSError):  # a full disk also refuses what is still buffered
                file.close()
            raise
        file.close()
        if durable:
            sync(temporary)
        check()
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if durable:
        sync(path.parent)


def replace_file(
    path: str | Path, data: bytes | memoryview, *, durable: bool = True, check: Callable[[], object] = lambda: None
) -> None:
    """Write a file whole or not at all, as `replacing` does."""
    with replacing(path, durable=durable, check=check) as file:
        file.write(data)


def settle(folder: str | Path) -> None:
    """Continue in a folder whose last writer may have been killed: remove its temporary files, and sync the names that it made,
    there, in the folders there, and of the folder itself and those above it on its disk, which it may have made."""
    folder = Path(folder).absolute()
    folders, disk = [folder, *folder.glob("*/")], folder.stat().st_dev
    for inside in folders:
        remove_leftovers(inside)
    for inside in (*folders, *takewhile(lambda above: above.stat().st_dev == disk, folder.parents)):
        sync_names(inside)


def remove_leftovers(folder: str | Path) -> None:
    """Remove the temporary files and folders in a folder whose writers were killed."""
    for path in Path(folder).glob(".*.tmp"):
        if is_left(path):
            shutil.rmtree(path, ignore_errors=True)
            with suppress(OSError):  # it is a folder, or another one removed it
                path.unlink()


def create_file(fs: Any, path: str, data: bytes) -> None:
    """Create a file whole, unless it exists; of several writers exactly one succeeds, also without file locks. `fs` is a file
    system of fsspec, `path` a path on it. Raises FileExistsError, or what the client raises."""
    if not isinstance(fs, LocalFileSystem):
        try:
            fs.pipe_file(path, data, mode="create")
        except OSError as error:
            if "ConditionalRequestConflict" in f"{error!r} {error.__cause__!r}":  # S3, while another one creates it
                raise FileExistsError(path) from error
            raise
        return
    temporary = temporary_name(path)
    try:
        temporary.write_bytes(data)
        sync(temporary)
        try:
            os.link(temporary, path)
        except OSError as error:
            if error.errno not in NO_LINKS:
                raise
            with open(path, "xb") as file:  # a reader may see it half written
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
    finally:
        temporary.unlink(missing_ok=True)
    sync(Path(path).parent)


def remove_files(fs: Any, paths: Sequence[str]) -> None:
    """Remove files from a file system of fsspec, where its client can with one request."""
    plain = [path for path in paths if not has_magic(path)] if len(paths) > 1 else []
    if plain:
        fs.rm(plain)
    for path in paths if not plain else set(paths) - set(plain):  # `rm` would take * ? and [ for a pattern
        fs.rm_file(path)


def ignores_condition(fs: Any, path: str) -> bool:
    """Return whether a file system of fsspec takes the condition of `create_file` and ignores it, as some servers do. `path` is a
    file that exists and belongs to the caller; its content stays."""
    if isinstance(fs, LocalFileSystem):
        return False
    content = bytes(fs.cat_file(path))
    try:
        fs.pipe_file(path, b"{}", mode="create")
    except FileExistsError:
        return False
    fs.pipe_file(path, content)
    return True


REMOVED_AT_ONCE = 1000
"""Most files of one request for removal: S3's limit."""
IGNORED = (
    "its server overwrites a file that is only to be created if none exists, so two writers would overwrite each other; use a "
    "server that supports If-None-Match, or a directory"
)
"""What is wrong with such a file system, in words."""


def why_not_exclusive(fs: Any) -> str | None:
    """Return why several writers may not share a file system of fsspec, None where they may: its client must create a file on
    the condition that none exists."""
    if isinstance(fs, LocalFileSystem) or type(fs).__module__.startswith(CREATING):
        return None
    protocol = fs.protocol if isinstance(fs.protocol, str) else fs.protocol[0]
    return (
        f"its client ({type(fs).__module__.partition('.')[0]}, {protocol}://) cannot create a file on the condition that none "
        "exists, so two writers would overwrite each other; use a local or shared directory, s3://, gs:// or abfs://"
    )
