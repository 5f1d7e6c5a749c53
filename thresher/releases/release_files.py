"""The files of a finished dataset as shards of a repository: named after the hash of their content, and checked before they are
sent."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

from schemas.dataset import PublishSpec
from schemas.manifest import Entry
from schemas.release import Shard
from thresher.errors import PublishError
from thresher.pool.run import Run
from thresher.pool.store import Store
from thresher.releases.validation import validate


def published_views(run: Run, spec: PublishSpec) -> tuple[str, ...]:
    """The views of the dataset that are published. Raises PublishError if `publish.views` names another one."""
    views = run.recipe.dataset.views
    if missing := [view for view in spec.views or () if view not in views]:
        raise PublishError(f"publish.views: {missing[0]} is not among the dataset's views ({', '.join(views)})")
    return tuple(view for view in views if spec.views is None or view in spec.views)


def checked_files(run: Run, dataset: Entry, views: tuple[str, ...], folder: Path) -> tuple[dict[str, Path], tuple[Shard, ...]]:
    """Each shard of a dataset that has rows, and its local file by the shard's path in a repository: `datasets` cannot load a
    split without rows. `folder` is the dataset, or the folder to which its files are copied from another store. Raises
    PublishError if a file has changed or does not fit the schemas."""
    files, shards = {}, []
    for name, facts in dataset.facts["files"].items():
        view, split, file_name = name.split("/")
        if view not in views or not facts["rows"]:
            continue
        file = _local(run.store, name, folder)
        digest = _digest(file)
        if digest not in file_name:
            path = run.store.path(f"dataset/{name}")
            raise PublishError(
                f"{path}: has changed since it was written (its hash differs); remove {run.root}/dataset and run again"
            )
        shard = Shard(
            path=f"{view}/{split}/{digest}.parquet",
            rows=facts["rows"],
            memory_bytes=facts["memory_bytes"],
            file_bytes=facts["bytes"],
        )
        files[shard.path] = file
        shards.append(shard)
    for shard in shards:
        validate(files[shard.path], shard.path.split("/")[0], run.prompt_format)
    return files, tuple(shards)


def by_view(shards: Iterable[Shard]) -> dict[str, tuple[Shard, ...]]:
    """The shards of each view."""
    views: dict[str, tuple[Shard, ...]] = {}
    for shard in shards:
        view = shard.path.split("/")[0]
        views[view] = (*views.get(view, ()), shard)
    return views


def rows_by_view(shards: Iterable[Shard]) -> dict[str, int]:
    """The number of rows of each view."""
    return {view: sum(shard.rows for shard in own) for view, own in by_view(shards).items()}


# -- inside --------------------------------------------------------------------------------------------------------------


def _local(store: Store, name: str, folder: Path) -> Path:
    """A file of the dataset in `folder`, copied from another store if the run is not local."""
    source, file = store.path(f"dataset/{name}"), folder / name
    if not store.local:
        file.parent.mkdir(parents=True, exist_ok=True)
        with store.explained(f"dataset/{name}", verb="read"):
            store.fs.get_file(source, str(file))
    return file


def _digest(path: Path) -> str:
    """The first 16 hexadecimal digits of a file's SHA-256."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]
