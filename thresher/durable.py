"""Local files and renames that survive a power cut: what was written is on the disk when these functions return."""

import os
from pathlib import Path


def sync(path: str | Path) -> None:
    """Flush a file, or the names in a directory, to the disk. A rename lasts once its directory is synced."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace_file(path: str | Path, data: bytes | memoryview, *, durable: bool = True) -> None:
    """Write a file whole or not at all: readers see the old content or the new one. Raises OSError. Without `durable` nothing is
    flushed, and a power cut may lose the file or its content."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(data)
        if durable:
            sync(temporary)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if durable:
        sync(path.parent)
