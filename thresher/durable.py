"""Files that survive a power cut, and files that exactly one of several writers can create."""

import errno
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from fsspec.implementations.local import LocalFileSystem

LEFTOVER_S = 3600.0
"""Seconds after which a temporary file is taken for one of a writer that was killed."""
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


def temporary_name(path: str | Path) -> Path:
    """Return a name beside a file that no other writer uses, on this machine or another: process ids repeat across machines."""
    path = Path(path)
    return path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")


@contextmanager
def replacing(path: str | Path, *, durable: bool = True) -> Iterator[IO[bytes]]:
    """A new file, open for reading and writing, that takes the place of `path` when the block ends: readers see the old content
    or the new one. After an error the old file stays. Raises OSError. Without `durable` nothing is flushed, and a power cut may
    lose the file or its content."""
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
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if durable:
        sync(path.parent)


def replace_file(path: str | Path, data: bytes | memoryview, *, durable: bool = True) -> None:
    """Write a file whole or not at all, as `replacing` does."""
    with replacing(path, durable=durable) as file:
        file.write(data)


def remove_leftovers(folder: str | Path) -> int:
    """Remove the temporary files of writers that were killed, in a folder and the folders in it; returns how many. Those of the
    last hour stay: another process may be writing them."""
    old, removed = time.time() - LEFTOVER_S, 0
    for pattern in (".*.tmp", "*/.*.tmp"):
        for path in Path(folder).glob(pattern):
            with suppress(OSError):  # removed by another, or a folder
                if path.stat().st_mtime < old:
                    path.unlink()
                    removed += 1
    return removed


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
