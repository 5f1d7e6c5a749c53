"""What a release needs of the place it goes to: a revision that is read, and one commit that moves it on, or does not."""

import random
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol, TypeVar

T = TypeVar("T")
TRIES, LONGEST_WAIT_S = 12, 60.0
Gated = Literal["auto", "manual"]


class MovedError(Exception):
    """The head is no longer the parent of a commit."""


@dataclass(frozen=True)
class Change:
    """What one commit does. Files of `adds` were sent before (`Place.send`); those of `staged` lie on the staging branch."""

    adds: Mapping[str, Path | bytes] = field(default_factory=dict)
    staged: tuple[str, ...] = ()
    restored: tuple[str, ...] = ()
    """Taken from the revision `since`."""
    since: str = ""
    deletes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Made:
    """A commit, or a pull request that asks for one."""

    revision: str
    request: str | None = None


class Place(Protocol):
    """A dataset repository. Calls raise what their client raises; `explained` makes it a PublishError."""

    name: str
    lists_files: bool
    """Whether the card must name every file: where a folder holds files of other versions, a pattern would find them too."""

    def explained(self) -> AbstractContextManager[None]:
        """Say what went wrong in words, and never with what was sent."""
        ...

    def wait(self, error: Exception, tried: int) -> float | None:
        """Seconds to wait before it is tried again; None where that is of no use."""
        ...

    def create(self, *, private: bool, gated: Gated | None) -> None:
        """Make the repository, if it is not there."""
        ...

    def who(self) -> str:
        """Who publishes."""
        ...

    def head(self) -> str:
        """The newest revision."""
        ...

    def text(self, revision: str, path: str) -> str | None:
        """A small file; None where there is none."""
        ...

    def files(self, revision: str) -> set[str]:
        """Paths of the Parquet files, and of all files of the index."""
        ...

    def tags(self) -> dict[str, str]:
        """Revisions by tag."""
        ...

    def send(self, path: str, file: Path, *, request: bool = False) -> None:
        """Send a file ahead of the commit, or the pull request, that will name it. What was sent before is not sent again."""
        ...

    def stage(self, files: Mapping[str, Path], revision: str) -> None:
        """Send files to where commits find them later, whatever becomes of this process."""
        ...

    def unstage(self) -> None:
        """Forget what was staged."""
        ...

    def fetch(self, revision: str, path: str, to: Path) -> None:
        """Copy a file from there."""
        ...

    def commit(self, change: Change, message: str, *, parent: str, tag: str | None, request: bool = False) -> Made:
        """Move the head from `parent` on, in one step, and tag it. Raises MovedError (or the client's own error) when somebody
        else moved it, and then nothing has changed."""
        ...

    def mend_tag(self, tag: str) -> None:
        """Set the tag of a commit that was cut off before it got it."""
        ...


def again(place: Place, call: Callable[[], T]) -> T:
    """Call until it goes through: other publishers and a server in trouble are waited for."""
    for tried in range(TRIES):
        try:
            return call()
        except Exception as error:
            wait = place.wait(error, tried)
            if wait is None or tried + 1 == TRIES:
                raise
        time.sleep(wait)
    raise AssertionError("the last try returns or raises")


def backoff(tried: int) -> float:
    """Seconds before the next try: twice as long each time, and never the same for two publishers."""
    return float(min(LONGEST_WAIT_S, 0.1 * 2**tried) * random.uniform(0.5, 1.5))
