"""The protocol of a dataset repository: revisions that can be read, and one atomic commit at a time."""

import random
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Literal, Protocol, TypeVar

from schemas.release import Shard

T = TypeVar("T")
TRIES, LONGEST_WAIT_S = 12, 60.0
Gated = Literal["auto", "manual"]
MISSING = "is missing"
"""What is wrong with a shard that is not there."""


class MovedError(Exception):
    """The head is no longer the parent of a commit."""


@dataclass(frozen=True)
class Change:
    """The content of one commit. Files of `adds` were sent before (`Place.send`); those of `staged` are on the staging branch."""

    adds: Mapping[str, Path | bytes] = field(default_factory=dict)
    staged: tuple[str, ...] = ()
    restored: tuple[str, ...] = ()
    """Files that are taken from the revision `since`."""
    since: str = ""
    deletes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Committed:
    """A commit, or a pull request that asks for one."""

    revision: str
    request: str | None = None


class Place(Protocol):
    """A dataset repository. Calls raise the errors of their client; `explained` turns them into PublishError."""

    name: str
    lists_files: bool
    """Whether the card must name each file: a folder also holds files of other versions, which a pattern would match."""

    def explained(self) -> AbstractContextManager[None]:
        """Turn errors of the client into PublishError, without the content of the request."""
        ...

    def wait(self, error: Exception, tried: int) -> float | None:
        """Return the seconds to wait before the next try, or None if another try cannot help."""
        ...

    def create(self, *, private: bool, gated: Gated | None) -> None:
        """Create the repository unless it exists."""
        ...

    def who(self) -> str:
        """Return the account that publishes."""
        ...

    def head(self) -> str:
        """Return the newest revision."""
        ...

    def text(self, revision: str, path: str) -> str | None:
        """Return the content of a small file, or None if there is no such file."""
        ...

    def readme(self, head: str) -> str | None:
        """Return the card as readers see it now, with what a person wrote since the newest revision; None if there is none."""
        ...

    def cards(self, head: str) -> Iterator[str]:
        """Return the generated cards of `head` and of earlier revisions, the newest first."""
        ...

    def files(self, revision: str) -> set[str]:
        """Return the paths of the Parquet files and of all files of the index."""
        ...

    def damage(self, revision: str, shards: Collection[Shard], *, whole: Collection[str] = ()) -> dict[str, str]:
        """Return what is wrong with the shards that are not as they were released, by their path: they are missing, or have
        another size or content. The content of those in `whole` is read where the storage does not know its hash."""
        ...

    def tags(self) -> dict[str, str]:
        """Return the revision of each tag."""
        ...

    def open(self, revision: str, path: str) -> AbstractContextManager[BinaryIO]:
        """Open a file of the repository, of which only the parts that are asked for are read."""
        ...

    def send(self, path: str, file: Path, *, request: bool = False) -> None:
        """Send a file ahead of the commit, or the pull request, that will name it. A file with this content is not sent again."""
        ...

    def stage(self, files: Mapping[str, Path], revision: str) -> None:
        """Send files to a place where a later commit finds them, even of another process."""
        ...

    def unstage(self) -> None:
        """Discard the staged files."""
        ...

    def fetch(self, revision: str, path: str, to: Path) -> None:
        """Copy a file from the repository."""
        ...

    def commit(self, change: Change, message: str, *, parent: str, tag: str | None, request: bool = False) -> Committed:
        """Make a commit onto `parent`, atomically, and tag it. Raises MovedError, or the client's own error, if the head is no
        longer `parent`; then nothing has changed."""
        ...

    def mend(self) -> None:
        """Complete what an interrupted command left undone, and remove its temporary files."""
        ...

    def mend_tag(self, tag: str) -> None:
        """Set the tag of a commit if it was interrupted before it was tagged."""
        ...


def again(place: Place, call: Callable[[], T]) -> T:
    """Call until it succeeds: waits for other publishers, and for a server that is unavailable."""
    for tried in range(TRIES):
        try:
            return call()
        except Exception as error:
            wait = place.wait(error, tried)
            if wait is None or tried + 1 == TRIES:
                raise
        time.sleep(wait)
    raise AssertionError("the last try returns or raises")


def damage_of(shard: Shard, size: int | None, sha256: str | None) -> str | None:
    """Return what is wrong with a shard of this size (None if it is missing) and hash (None if it is not known), or None."""
    if size is None:
        return MISSING
    if size != shard.file_bytes:
        return f"has {size} bytes, not the {shard.file_bytes} that were released"
    if sha256 is not None and not sha256.startswith(Path(shard.path).stem):
        return f"has another content than was released (SHA-256 {sha256[:16]})"
    return None


def backoff(tried: int) -> float:
    """Return the seconds before the next try: doubled each time, with jitter so that two publishers do not collide again."""
    return float(min(LONGEST_WAIT_S, 0.1 * 2**tried) * random.uniform(0.5, 1.5))
