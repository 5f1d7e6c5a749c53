"""Ids are looked up in the columns of ids of every view."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from schemas.release import Release, RepositoryManifest, Shard
from thresher.errors import PublishError
from thresher.releases.held_samples import stop_at_unknown
from thresher.releases.places.folder import Folder


def test_ids_are_found_in_every_view_and_others_named(tmp_path: Path) -> None:
    columns = {
        "sft": ["sample_id"],
        "preference": ["chosen_id", "rejected_id"],
        "prompts": ["prompt_id"],
        "rollouts": ["sample_id"],
    }
    views = {}
    for view, names in columns.items():
        table = pa.table({name: [f"{view}-{name}", None] for name in names} | {"other": ["x", "sft"]})
        pq.write_table(table, f"{tmp_path}/{view}.parquet")
        views[view] = (Shard(path=f"{view}.parquet", rows=2, memory_bytes=1, file_bytes=1),)
    release = Release(
        version="v1", at="", run="r", dataset="d", name="n", thresher_version="0", figures={}, rows={"sft": 2}, views=views
    )
    manifest, place = RepositoryManifest(columns={}, releases=(release,)), Folder(str(tmp_path))
    held = ["rollouts-sample_id", "preference-rejected_id", "preference-chosen_id", "sft-sample_id"]

    stop_at_unknown(place, "000001", manifest, held)
    with pytest.raises(
        PublishError, match="3 of 7 ids are of no sample there, so nothing was revoked: prompts-prompt_id, x, sft;"
    ):
        stop_at_unknown(place, "000001", manifest, [*held, "prompts-prompt_id", "x", "sft"])
    (tmp_path / "sft.parquet").write_bytes(b"none")
    with pytest.raises(PublishError, match=r"sft\.parquet cannot be read: .*; publish its run again"):
        stop_at_unknown(place, "000001", manifest, held)
