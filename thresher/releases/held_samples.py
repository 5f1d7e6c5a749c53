"""The samples that a repository holds: which of some ids occur in its shards, of which only the columns of ids are read."""

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from schemas.release import RepositoryManifest, Shard
from thresher.errors import PublishError
from thresher.releases.places.place import Place, again
from thresher.releases.repository import SHOWN

ID_COLUMNS = ("sample_id", "chosen_id", "rejected_id")
"""Columns that name samples."""
_ORDER = ("sft", "unpaired", "preference", "tokens", "distill", "rollouts")
"""Views with such columns, the small ones first."""


def stop_at_unknown(place: Place, head: str, manifest: RepositoryManifest, samples: Sequence[str]) -> None:
    """Raise PublishError, which names them, if some ids are of no sample in the shards of a revision."""
    unknown = set(samples)
    for shard in _shards(manifest):
        if unknown:
            unknown -= again(place, lambda: _held(place, head, shard, unknown))  # noqa: B023 - called at once
    if not unknown:
        return
    named = [sample for sample in samples if sample in unknown]
    more = f" and {len(named) - SHOWN} more" if len(named) > SHOWN else ""
    raise PublishError(
        f"{place.name}: {len(named)} of {len(samples)} ids are of no sample there, so nothing was revoked: "
        f"{', '.join(named[:SHOWN])}{more}; wanted ids from the columns {', '.join(ID_COLUMNS)} of its configs"
    )


# -- inside --------------------------------------------------------------------------------------------------------------


def _shards(manifest: RepositoryManifest) -> list[Shard]:
    shards = {shard.path: shard for view in _ORDER for release in manifest.releases for shard in release.views.get(view, ())}
    return list(shards.values())


def _held(place: Place, head: str, shard: Shard, wanted: set[str]) -> set[str]:
    """Those of the ids that a shard holds."""
    held: set[str] = set()
    values = pa.array(sorted(wanted), pa.string())
    try:
        with place.open(head, shard.path) as opened, pq.ParquetFile(opened) as file:
            columns = [name for name in ID_COLUMNS if name in file.schema_arrow.names]
            for group in range(file.num_row_groups):
                for column in file.read_row_group(group, columns).columns:
                    held |= set(column.filter(pc.is_in(column, values)).to_pylist())
    except pa.ArrowException as error:
        said = str(error).splitlines()[0]
        raise PublishError(f"{place.name}: {Path(shard.path)} cannot be read: {said}; publish its run again") from error
    return held
