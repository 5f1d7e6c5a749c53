"""Errors of disks and object stores, as messages that say what to do."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from thresher.errors import StoreError


@contextmanager
def explained(root: str, path: str, name: str, *, local: bool, verb: str) -> Iterator[None]:
    """Turn the errors of a file system into StoreError. `root` is the run directory, `path` the file as a local path or key,
    `name` its name in the run, and `verb` what was tried: write, read, remove, look for, list."""
    try:
        yield
    except OSError as error:
        cause = error.strerror or str(error)
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            cause += "; free some space and run the same command again: everything finished is kept"
        elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            cause += f"; choose a directory you may {verb} with --out, or change its permissions"
        raise StoreError(f"{path}: cannot {verb}: {cause}") from error
    except Exception as error:
        if local or isinstance(error, StoreError):
            raise
        cause = " ".join(str(error).split()) or type(error).__name__  # clients of object stores raise errors of their own
        raise StoreError(
            f"{root}: cannot {verb} {name or 'it'}: {cause}; check that this machine reaches it and has its keys"
        ) from error
