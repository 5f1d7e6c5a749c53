"""Shards of a release, by view."""

from schemas.release import Shard
from thresher.releases.release_files import by_view, rows_by_view


def shard(path: str, rows: int) -> Shard:
    return Shard(path=path, rows=rows, memory_bytes=1, file_bytes=1)


def test_shards_are_grouped_by_view_in_order() -> None:
    shards = [shard("sft/train/b", 2), shard("rollouts/train/c", 5), shard("sft/test/a", 1)]

    assert by_view(shards) == {"sft": (shards[0], shards[2]), "rollouts": (shards[1],)}
    assert rows_by_view(shards) == {"sft": 3, "rollouts": 5}
