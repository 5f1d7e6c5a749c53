"""Releases on the Hugging Face Hub. huggingface_hub takes its token from its login or its environment variables; it is never read
here."""

import json
import re
import shutil
from collections.abc import Collection, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from schemas.release import Shard
from thresher import __version__
from thresher.errors import PublishError
from thresher.releases.merge_card import CARD, README, decoded, own_part
from thresher.releases.places.place import LONGEST_WAIT_S, Change, Committed, Gated, again, backoff, damage_of

AGAIN = (409, 412, 429, 500, 502, 503, 504)
"""Status codes after which a call is repeated: the head has moved, too many requests, or an error of the server."""
STAGING, STAGED_FILES = "thresher-staging", 50


class HubPlace:
    """A dataset repository of the Hub."""

    lists_files = False

    def __init__(self, repo: str) -> None:
        try:
            from huggingface_hub import HfApi
        except ImportError as error:
            raise PublishError(f"huggingface_hub cannot be imported ({error}); reinstall thresher") from error
        self.name = repo
        self._api: Any = HfApi(library_name="thresher", library_version=__version__)
        self._sent: dict[str, Any] = {}

    # -- errors --------------------------------------------------------------------------------------------------------

    def wait(self, error: Exception, tried: int) -> float | None:
        from huggingface_hub.errors import HfHubHTTPError

        if isinstance(error, HfHubHTTPError):
            if getattr(error.response, "status_code", None) not in AGAIN:
                return None
            seconds = _requested_wait(error)
            return backoff(tried) if seconds is None else seconds
        return backoff(tried) if isinstance(error, (ConnectionError, _transport_error())) else None

    @contextmanager
    def explained(self) -> Iterator[None]:
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalTokenNotFoundError, RepositoryNotFoundError

        repo = self.name
        try:
            yield
        except LocalTokenNotFoundError as error:
            raise PublishError(f"{repo}: no token; log in with `hf auth login`, or set HF_TOKEN") from error
        except HFValidationError as error:
            raise PublishError(f"{repo}: not the name of a repository, such as ORG/NAME: {str(error).splitlines()[0]}") from error
        except RepositoryNotFoundError as error:
            raise PublishError(f"{repo}: no such dataset repository, or the token may not see it") from error
        except HfHubHTTPError as error:
            status = getattr(error.response, "status_code", "?")
            hint = (
                "; log in with `hf auth login`, or set HF_TOKEN to a token that may write there" if status in (401, 403) else ""
            )
            raise PublishError(
                f"{repo}: the Hub answers {status}: {_first(error)}{hint}; nothing has changed, so try again"
            ) from error
        except (ConnectionError, _transport_error()) as error:
            raise PublishError(f"{repo}: the Hub cannot be reached ({type(error).__name__}); the same command resumes") from error

    # -- reading -------------------------------------------------------------------------------------------------------

    def create(self, *, private: bool, gated: Gated | None) -> None:
        self._api.create_repo(self.name, repo_type="dataset", private=private or None, exist_ok=True)
        if gated is not None:
            self._api.update_repo_settings(self.name, repo_type="dataset", gated=gated)

    def who(self) -> str:
        return str(self._api.whoami()["name"])

    def head(self) -> str:
        return str(self._api.dataset_info(self.name).sha)

    def text(self, revision: str, path: str) -> str | None:
        from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

        try:
            file = self._api.hf_hub_download(self.name, path, repo_type="dataset", revision=revision)
        except LocalEntryNotFoundError as error:  # an EntryNotFoundError, but it means that the Hub did not answer
            raise ConnectionError(f"{path} cannot be read") from error
        except EntryNotFoundError:
            return None
        return decoded(Path(file).read_bytes(), f"{self.name}/{path}")

    def readme(self, head: str) -> str | None:
        return self.text(head, README)

    def cards(self, head: str) -> Iterator[str]:
        """The card of the head, then those of the tags in the order of the changes; the commits of rollbacks have no tags."""
        if (card := self.text(head, CARD)) is not None:
            yield card
        tags = self.tags()
        for change in json.loads(self.text(head, "thresher/manifest.json") or "{}").get("changes", ()):
            tag = change.partition(":")[0].removeprefix("rolled back to ")
            if tag in tags:
                if (card := self.text(tags[tag], CARD)) is not None:
                    yield card
                elif (text := self.text(tags[tag], README)) is not None:
                    yield own_part(text)

    def files(self, revision: str) -> set[str]:
        return {path for path in self._listed(revision) if path.endswith(".parquet") or path.startswith("index/")}

    def damage(self, revision: str, shards: Collection[Shard], *, whole: Collection[str] = ()) -> dict[str, str]:  # noqa: ARG002
        """The Hub knows the hash of every shard."""
        listed = self._listed(revision)
        found = {shard.path: damage_of(shard, *listed.get(shard.path, (None, None))) for shard in shards}
        return {path: words for path, words in found.items() if words is not None}

    def _listed(self, revision: str) -> dict[str, tuple[int, str | None]]:
        """Size and SHA-256 of each file; the latter of large files only."""
        from huggingface_hub import RepoFile

        entries = self._api.list_repo_tree(self.name, repo_type="dataset", revision=revision, recursive=True)
        files = [entry for entry in entries if isinstance(entry, RepoFile)]
        return {file.path: (file.size, file.lfs.sha256 if file.lfs else None) for file in files}

    def tags(self) -> dict[str, str]:
        return {ref.name: ref.target_commit for ref in self._api.list_repo_refs(self.name, repo_type="dataset").tags}

    def fetch(self, revision: str, path: str, to: Path) -> None:
        scratch = to.parent / f".{to.name}"
        file = self._api.hf_hub_download(self.name, path, repo_type="dataset", revision=revision, local_dir=scratch)
        Path(file).replace(to)
        shutil.rmtree(scratch)

    def open(self, revision: str, path: str) -> AbstractContextManager[BinaryIO]:
        from huggingface_hub import HfFileSystem

        file: AbstractContextManager[BinaryIO] = HfFileSystem(skip_instance_cache=True).open(
            f"datasets/{self.name}/{path}", revision=revision, block_size=1 << 20
        )
        return file

    # -- writing -------------------------------------------------------------------------------------------------------

    def send(self, path: str, file: Path, *, request: bool = False) -> None:
        from huggingface_hub import CommitOperationAdd

        if path not in self._sent:
            add = CommitOperationAdd(path, file)
            self._api.preupload_lfs_files(self.name, [add], repo_type="dataset", create_pr=request, free_memory=False)
            self._sent[path] = add

    def stage(self, files: Mapping[str, Path], revision: str) -> None:
        again(
            self,
            lambda: self._api.create_branch(self.name, repo_type="dataset", branch=STAGING, revision=revision, exist_ok=True),
        )
        staged = again(self, lambda: self.files(STAGING))
        missing = [(path, file) for path, file in files.items() if path not in staged]
        for start in range(0, len(missing), STAGED_FILES):
            again(self, partial(self._stage, missing[start : start + STAGED_FILES]))

    def _stage(self, files: list[tuple[str, Path]]) -> None:
        from huggingface_hub import CommitOperationAdd

        adds = [CommitOperationAdd(path, file) for path, file in files]
        self._api.create_commit(self.name, adds, repo_type="dataset", commit_message="Staged", revision=STAGING)

    def unstage(self) -> None:
        from huggingface_hub.errors import RevisionNotFoundError

        try:
            self._api.delete_branch(self.name, repo_type="dataset", branch=STAGING)
        except RevisionNotFoundError:
            return

    def commit(self, change: Change, message: str, *, parent: str, tag: str | None, request: bool = False) -> Committed:
        from huggingface_hub import CommitOperationAdd, CommitOperationCopy, CommitOperationDelete

        operations: list[Any] = []
        for path, content in change.adds.items():
            add = self._sent.get(path) if isinstance(content, Path) else None
            add = CommitOperationAdd(path, content) if add is None else add
            add._is_committed = False  # a failed attempt has set it
            operations.append(add)
        operations += [CommitOperationCopy(path, path, src_revision=STAGING) for path in change.staged]
        operations += [CommitOperationCopy(path, path, src_revision=change.since) for path in change.restored]
        operations += [CommitOperationDelete(path) for path in change.deletes]
        commit = self._api.create_commit(
            self.name, operations, repo_type="dataset", commit_message=message, parent_commit=parent, create_pr=request
        )
        if tag is not None and not request:
            again(self, lambda: self._api.create_tag(self.name, tag=tag, revision=commit.oid, repo_type="dataset", exist_ok=True))
        return Committed(str(commit.oid), commit.pr_url if request else None)

    def mend(self) -> None:
        return

    def mend_tag(self, tag: str) -> None:
        if tag in self.tags():
            return
        commits = self._api.list_repo_commits(self.name, repo_type="dataset")
        commit = next((commit.commit_id for commit in commits if commit.title.startswith(f"{tag}: ")), None)
        if commit is not None:
            self._api.create_tag(self.name, tag=tag, revision=commit, repo_type="dataset", exist_ok=True)


def _requested_wait(error: Any) -> float | None:
    """The seconds that a server asks to wait: Retry-After, or `t` of RateLimit."""
    headers = error.response.headers
    seconds = re.search(r"\bt=(\d+)", headers.get("RateLimit", "")) or re.match(r"(\d+)$", headers.get("Retry-After", ""))
    return min(LONGEST_WAIT_S, float(seconds[1])) if seconds else None


def _transport_error() -> type[Exception]:
    import httpx2

    transport_error: type[Exception] = httpx2.TransportError
    return transport_error


def _first(error: Any) -> str:
    return str(getattr(error, "server_message", None) or str(error).splitlines()[0])
