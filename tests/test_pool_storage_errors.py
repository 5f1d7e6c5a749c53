"""Errors of disks and object stores, in words."""

import errno

import pytest

from thresher.errors import StoreError
from thresher.pool.storage_errors import explained


@pytest.mark.parametrize(
    ("error", "local", "message"),
    [
        (
            OSError(errno.ENOSPC, "No space left on device"),
            True,
            r"^/r/a: cannot write: No space.*free some space and run",
        ),
        (OSError(errno.EACCES, "Permission denied"), True, r"choose a directory you may write with --out"),
        (RuntimeError("no credentials"), False, r"^s3://r: cannot write a: no credentials; check that this machine reaches it"),
    ],
)
def test_errors_say_where_and_what_to_do(error: Exception, local: bool, message: str) -> None:
    with pytest.raises(StoreError, match=message), explained("s3://r", "/r/a", "a", local=local, verb="write"):
        raise error


def test_errors_of_our_own_code_on_a_disk_are_not_the_disks() -> None:
    with pytest.raises(RuntimeError), explained("/r", "/r/a", "a", local=True, verb="write"):
        raise RuntimeError("a fault")
