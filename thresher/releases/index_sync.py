"""The index of released samples travels with the dataset: it is a folder of the repository, and each run's own index is
updated from it.

The manifest of the repository names the released runs and the dataset of each. A run adds what its index lacks before it is
compared, and notes the releases that it was compared with (`asked.json`); at publication it is compared with newer ones.
"""

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager

from filters import trust
from filters.base import FilterError
from filters.similarity.signatures import SCHEME, Signed
from schemas.release import Release, RepositoryManifest
from schemas.repeats import DedupeSpec
from thresher.dedupe import released
from thresher.dedupe.index import Index
from thresher.dedupe.released import ASKED
from thresher.errors import PublishError
from thresher.pool.run import Run
from thresher.pool.store import Store
from thresher.releases.change import fetch_whole
from thresher.releases.places.open_place import open_place
from thresher.releases.places.place import Change, Place, again
from thresher.releases.repository import INDEX, INDEXED, read

log = logging.getLogger(__name__)

VIEW = "sft"
"""The view whose rows are indexed."""


def compared_releases(store: Store) -> dict[str, str]:
    """Return the releases that a run's samples were compared with, and the dataset that each had then."""
    compared: dict[str, str] = json.loads(store.read_bytes(ASKED)) if store.exists(ASKED) else {}
    return compared


@contextmanager
def with_index(
    place: Place, head: str, manifest: RepositoryManifest, run: Run, change: Change, *, compared: dict[str, str]
) -> Iterator[Change]:
    """Yield the change with the index of released samples, if the recipe names one. Files of an index never change, so only new
    ones are sent. Releases in the manifest that the run was not `compared` with yet are compared now, and added to `compared`.
    Raises PublishError if the run repeats samples of theirs."""
    spec = run.recipe.dedupe
    if spec is None or spec.released is None:
        yield change
        return
    index = released.open_index(spec, run.base)
    datasets = _other_runs(manifest, run)
    if new := {key for key, dataset in datasets.items() if compared.get(key) != dataset}:
        _update(place, head, manifest, index, run)
        if repeats := released.repeated(run.store, spec, index, new):
            raise PublishError(
                f"{place.name}: {repeats} samples of this run repeat samples released there after the run was compared; "
                f"run it again with publish.repo={place.name} (thresher run, or Retry in Prefect): no sample is drawn again, and "
                "the repeats are dropped"
            )
        compared |= datasets
    with index.snapshot() as folder:
        wanted = {f"{INDEX}/{file.relative_to(folder)}": file for file in folder.rglob("*") if file.is_file()}
        present = {path for path in place.files(head) if path.startswith(f"{INDEX}/")}
        adds = {**change.adds, **{path: wanted[path] for path in sorted((set(wanted) - present) | {INDEXED})}}
        yield Change(adds=adds, deletes=(*change.deletes, *sorted(present - set(wanted))))


def take_in(run: Run) -> set[str]:
    """Add to the run's index what the repository of its recipe holds; returns the keys of the released runs. If the repository
    cannot be read, that is logged: the release tries again."""
    recipe = run.recipe
    if recipe.publish.repo is None or recipe.dedupe is None or recipe.dedupe.released is None:
        return set()
    run.require_consent(publishes=True)
    index, place = released.open_index(recipe.dedupe, run.base), open_place(recipe.publish.repo)

    def attempt() -> set[str]:
        head = place.head()
        manifest = read(place, head)
        _update(place, head, manifest, index, run)
        return set(_other_runs(manifest, run))

    try:
        with place.explained():
            return again(place, attempt)
    except PublishError as error:
        log.info("the releases of %s could not be read: %s", place.name, error)
        return set()


# -- inside --------------------------------------------------------------------------------------------------------------


def _other_runs(manifest: RepositoryManifest, run: Run) -> dict[str, str]:
    """The dataset of each other run that has hits in the repository, by the run's key."""
    parts = [part for release in manifest.releases if VIEW in release.rows for part in release.merged or (release,)]
    return {part.run: part.dataset for part in parts if part.run != run.key}


def _update(place: Place, head: str, manifest: RepositoryManifest, index: Index, run: Run) -> None:
    """Add the releases of a repository to an index; not those of the run itself, whose samples would repeat themselves."""
    spec = run.recipe.dedupe
    assert spec is not None
    if manifest.releases and not index.manifest.releases:
        _copy_index(place, head, index)
    for release in manifest.releases:
        if run.key not in {part.run for part in (release, *release.merged)}:
            _add_release(place, head, index, release, spec)


def _copy_index(place: Place, head: str, index: Index) -> None:
    """Copy the repository's index if it is of the same rule and complete. That is cheaper than reading all releases."""
    text = place.text(head, INDEXED)
    if text is None or [json.loads(text).get(name) for name in ("rule", "scheme")] != [index.rule, SCHEME]:
        return
    with index.beside() as folder:
        (folder / "index.json").write_text(text)
        for path in sorted(place.files(head)):
            if path.startswith(f"{INDEX}/runs/"):
                if refused := trust.outside(str(folder), path.removeprefix(f"{INDEX}/"), local=True):
                    raise PublishError(f"{place.name}: {refused}")
                target = folder / path.removeprefix(f"{INDEX}/")
                target.parent.mkdir(parents=True, exist_ok=True)
                place.fetch(head, path, target)
        try:
            index.adopt(folder)
        except FilterError as error:
            log.info("the index of %s is incomplete, so its releases are read instead: %s", place.name, error)


def _add_release(place: Place, head: str, index: Index, release: Release, spec: DedupeSpec) -> None:
    """Index a release, unless the index has its rows. The rows of merged releases are not told apart: the first of them gets all,
    under a version that says which merge they are of, so that they are read again when that is rolled back."""
    if VIEW not in release.rows or _indexed(index, release):
        return
    stamp = f"@{release.version}" if release.merged else ""
    first, *others = ((part.run, part.dataset) for part in release.merged or (release,))

    def batches() -> Iterator[tuple[Signed, list[str]]]:
        with index.beside() as folder:
            for shard in release.views.get(VIEW, ()):
                fetch_whole(place, head, shard, folder / "shard.parquet")
                yield from released.signed_rows(str(folder / "shard.parquet"), spec)

    index.add(first[0], batches(), version=first[1] + stamp)
    for key, dataset in others:
        index.add(key, (), version=dataset + stamp)
    log.info("added %s of %s to the index %s", release.version, place.name, index.folder)


def _indexed(index: Index, release: Release) -> bool:
    """Whether an index has the rows of a release, or exactly those of the releases that were merged into it."""
    parts = release.merged or (release,)
    versions = [(index.manifest.versions.get(part.run), part.dataset) for part in parts]
    left_out = release.rows.get(VIEW, 0) < sum(part.rows.get(VIEW, 0) for part in parts)  # revoked before the merge
    singly = not left_out and all(version == dataset for version, dataset in versions)
    return singly or all(version == f"{dataset}@{release.version}" for version, dataset in versions)
