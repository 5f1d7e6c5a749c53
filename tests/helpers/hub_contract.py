"""What releases need from a Hub, checked through the real clients against the Hub of the tests or the real one. Run as a
program, with HF_ENDPOINT, HF_TOKEN and HF_HUB_DISABLE_XET in the environment; the argument names a repository, which is
created and deleted."""

import hashlib
import io
import sys
import tempfile
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from huggingface_hub import CommitOperationAdd, CommitOperationCopy, CommitOperationDelete, HfApi, HfFileSystem
from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, RepositoryNotFoundError

REPO = sys.argv[1]
CARD = """---
configs:
- config_name: one
  default: true
  data_files: [{{split: train, path: one/train/*.parquet}}]
dataset_info:
  config_name: one
  splits: [{{name: train, num_bytes: 1, num_examples: {rows}}}]
---
# A dataset
"""
api = HfApi()


def shard(folder: Path, first: Any, rows: int = 2000) -> Any:
    table = pa.table(
        {"n": pa.array(range(first, first + rows)), "text": [hashlib.sha256(b"%d" % n).hexdigest() for n in range(rows)]}
    )
    path = folder / f"{first}.parquet"
    pq.write_table(table, path)
    return path


def refused(status: Any, call: Any) -> None:
    with pytest.raises(HfHubHTTPError) as error:
        call()
    assert error.value.response.status_code == status


def commit(operations: Any, message: Any, **more: Any) -> Any:
    return api.create_commit(REPO, operations, repo_type="dataset", commit_message=message, **more)


def head(revision: Any = None) -> Any:
    return api.dataset_info(REPO, revision=revision).sha


def rows(revision: Any) -> Any:
    return datasets.load_dataset(REPO, "one", split="train", revision=revision)["n"][:]


def main(folder: Path) -> None:
    assert api.whoami()["name"]
    with pytest.raises(RepositoryNotFoundError):
        api.dataset_info(REPO)
    api.create_repo(REPO, repo_type="dataset", private=False)
    api.create_repo(REPO, repo_type="dataset", exist_ok=True)
    empty = head()

    # Blobs sent ahead are not visible; one commit shows them; a commit on an old parent is refused.
    add = CommitOperationAdd("one/train/a.parquet", shard(folder, 0))
    api.preupload_lfs_files(REPO, [add], repo_type="dataset", free_memory=False)
    assert head() == empty
    first = commit([add, CommitOperationAdd("README.md", CARD.format(rows=2000).encode())], "first", parent_commit=empty)
    assert head() == first.oid != empty
    late = CommitOperationAdd("one/train/late.parquet", shard(folder, 9000))
    refused(412, lambda: commit([late], "late", parent_commit=empty))
    assert head() == first.oid
    api.create_tag(REPO, tag="v1", revision=first.oid, repo_type="dataset")
    refused(409, lambda: api.create_tag(REPO, tag="v1", revision=first.oid, repo_type="dataset"))

    # Content that is there already makes no commit.
    same = commit([CommitOperationAdd("README.md", CARD.format(rows=2000).encode())], "same", parent_commit=first.oid)
    assert same.oid == first.oid

    # A second release; both tags load as they were, whole and streamed.
    more = [
        CommitOperationAdd("one/train/b.parquet", shard(folder, 2000)),
        CommitOperationAdd("README.md", CARD.format(rows=4000).encode()),
    ]
    second = commit(more, "second", parent_commit=first.oid)
    api.create_tag(REPO, tag="v2", revision=second.oid, repo_type="dataset")
    assert (len(rows("v1")), sorted(rows("v2"))) == (2000, list(range(4000)))
    streamed = datasets.load_dataset(REPO, "one", split="train", revision="v1", streaming=True)
    assert [row["n"] for row in streamed] == list(range(2000))
    tags = {ref.name: ref.target_commit for ref in api.list_repo_refs(REPO, repo_type="dataset").tags}
    assert tags == {"v1": first.oid, "v2": second.oid}
    assert [item.commit_id for item in api.list_repo_commits(REPO, repo_type="dataset")][:2] == [second.oid, first.oid]

    # Files are listed and read by range.
    listed = {entry.path for entry in api.list_repo_tree(REPO, repo_type="dataset", recursive=True, revision="v1")}
    assert {"README.md", "one/train/a.parquet"} <= listed
    assert "one/train/b.parquet" not in listed
    with HfFileSystem().open(f"datasets/{REPO}@v2/one/train/b.parquet") as file:
        assert pq.read_table(io.BytesIO(file.read()), columns=["n"])["n"][0].as_py() == 2000
    with pytest.raises(EntryNotFoundError):
        api.hf_hub_download(REPO, "none.txt", repo_type="dataset")

    # Copies move no data: back to what was, and on from a branch.
    back = [CommitOperationDelete("one/train/b.parquet"), CommitOperationAdd("README.md", CARD.format(rows=2000).encode())]
    third = commit(back, "back", parent_commit=second.oid)
    assert len(rows(third.oid)) == 2000
    api.create_branch(REPO, repo_type="dataset", branch="staging", revision=third.oid)
    commit([CommitOperationAdd("one/train/c.parquet", shard(folder, 4000))], "staged", revision="staging")
    assert head() == third.oid
    switch = [
        CommitOperationCopy("one/train/c.parquet", "one/train/c.parquet", src_revision="staging"),
        CommitOperationCopy("one/train/b.parquet", "one/train/b.parquet", src_revision="v2"),
        CommitOperationDelete("one/train/a.parquet"),
        CommitOperationAdd("README.md", CARD.format(rows=4000).encode()),
    ]
    fourth = commit(switch, "switch", parent_commit=third.oid)
    assert sorted(rows(fourth.oid)) == list(range(2000, 6000))
    api.delete_branch(REPO, repo_type="dataset", branch="staging")

    # A pull request leaves main alone.
    asked = commit([CommitOperationAdd("notes.md", b"hello")], "a request", create_pr=True)
    assert asked.pr_url
    assert head() == fourth.oid
    assert api.hf_hub_download(REPO, "notes.md", repo_type="dataset", revision=asked.pr_revision)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        try:
            main(Path(scratch))
        finally:
            api.delete_repo(REPO, repo_type="dataset", missing_ok=True)
    print("contract kept")
