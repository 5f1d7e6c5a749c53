"""Commits of a person on the Hub of the tests, and the content of files there."""

import hashlib
from collections.abc import Mapping
from typing import Any

from helpers.hub_server import ATTRIBUTES, File, Repository, git_oid

REPO = "acme/sums"


def put(hub: Any, files: Mapping[str, bytes | None], repo: str = REPO) -> None:
    """Write files, or delete those without content, in one commit. The repository is made if there is none."""
    if repo not in hub.repositories:
        hub.repositories[repo] = made = Repository(repo, private=False)
        made.add("refs/heads/main", None, {}, "initial commit", "alice")
        files = {".gitattributes": ATTRIBUTES.encode(), **files}
    repository = hub.repositories[repo]
    head = repository.at("main")
    tree = dict(head.tree)
    for path, data in files.items():
        if data is None:
            del tree[path]
            continue
        digest = hashlib.sha256(data).hexdigest() if path.endswith(".parquet") else None
        hub.put(digest or git_oid(data), data)
        tree[path] = File(git_oid(data), len(data), digest)
    repository.add("refs/heads/main", head.oid, tree, "by hand", "bob")


def content(hub: Any, path: str, repo: str = REPO) -> bytes:
    """The content of a file of main."""
    found: bytes = hub.content(hub.repositories[repo].at("main").tree[path])
    return found
