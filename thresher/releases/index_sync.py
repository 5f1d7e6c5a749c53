"""What a repository's releases hold is known to the runs that are released there, and the index of it travels along.

The manifest of the repository says what was released: runs, and which of its datasets each has there. A run takes in what its
index lacks before it asks, and notes what it asked about (`asked.json`); of what came since it is asked when it is released.
"""

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager

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
from thresher.releases.places.open_place import open_place
from thresher.releases.places.place import Change, Place, again
from thresher.releases.repository import INDEX, INDEXED, read

log = logging.getLogger(__name__)

VIEW = "sft"
"""The view that holds what an index knows."""


def asked(store: Store) -> dict[str, str]:
    """The releases that a run's samples were compared with, and the dataset that each had."""
    found: dict[str, str] = json.loads(store.read_bytes(ASKED)) if store.exists(ASKED) else {}
    return found


@contextmanager
def with_index(
    place: Place, head: str, there: RepositoryManifest, run: Run, made: Change, *, compared: dict[str, str]
) -> Iterator[Change]:
    """The change, and the index of what was released, where the recipe names one: its files are never changed, so only new ones
    are sent. Releases that are there and that the run was not `compared` with yet are compared now, and added to those. Raises
    PublishError where it repeats some of what they hold."""
    spec = run.recipe.dedupe
    if spec is None or spec.released is None:
        yield made
        return
    index = released.open_index(spec, run.base)
    runs = _runs(there, run)
    if new := {run for run, dataset in runs.items() if compared.get(run) != dataset}:
        _know(place, head, there, index, run)
        if repeats := released.repeated(run.store, spec, index, new):
            raise PublishError(
                f"{place.name}: {repeats} samples of this run repeat what was released there after it looked, or where it did "
                f"not look; run it again with publish.repo={place.name} (thresher run, or Retry in Prefect): nothing is drawn "
                "anew, and they are dropped"
            )
        compared |= runs
    with index.snapshot() as folder:
        wanted = {f"{INDEX}/{file.relative_to(folder)}": file for file in folder.rglob("*") if file.is_file()}
        present = {path for path in place.files(head) if path.startswith(f"{INDEX}/")}
        adds = {**made.adds, **{path: wanted[path] for path in sorted((set(wanted) - present) | {INDEXED})}}
        yield Change(adds=adds, deletes=(*made.deletes, *sorted(present - set(wanted))))


def take_in(run: Run) -> set[str]:
    """Have the run's index know what the repository that it is to be released to holds; returns the runs that are there. What
    cannot be read is logged, for the release looks again."""
    recipe = run.recipe
    if recipe.publish.repo is None or recipe.dedupe is None or recipe.dedupe.released is None:
        return set()
    index, place = released.open_index(recipe.dedupe, run.base), open_place(recipe.publish.repo)

    def attempt() -> set[str]:
        head = place.head()
        there = read(place, head)
        _know(place, head, there, index, run)
        return set(_runs(there, run))

    try:
        with place.explained():
            return again(place, attempt)
    except PublishError as error:
        log.info("what was released to %s was not read: %s", place.name, error)
        return set()


# -- inside --------------------------------------------------------------------------------------------------------------


def _runs(there: RepositoryManifest, but: Run) -> dict[str, str]:
    """The dataset of each other run that has hits there."""
    parts = [part for one in there.releases if VIEW in one.rows for part in one.merged or (one,)]
    return {part.run: part.dataset for part in parts if part.run != but.key}


def _know(place: Place, head: str, there: RepositoryManifest, index: Index, own: Run) -> None:
    """Have an index know every release that is there."""
    spec = own.recipe.dedupe
    assert spec is not None
    if there.releases and not index.manifest.releases:
        _copied(place, head, index)
    for one in there.releases:
        if own.key not in {part.run for part in (one, *one.merged)}:  # or it would find itself among them
            _added(place, head, index, one, spec)


def _copied(place: Place, head: str, index: Index) -> None:
    """Copy the repository's index, which is cheaper than to read all its releases, where it is of this rule and whole."""
    text = place.text(head, INDEXED)
    if text is None or [json.loads(text).get(name) for name in ("rule", "scheme")] != [index.rule, SCHEME]:
        return
    with index.beside() as folder:
        (folder / "index.json").write_text(text)
        for path in sorted(place.files(head)):
            if path.startswith(f"{INDEX}/runs/"):
                to = folder / path.removeprefix(f"{INDEX}/")
                to.parent.mkdir(parents=True, exist_ok=True)
                place.fetch(head, path, to)
        try:
            index.adopt(folder)
        except FilterError as error:
            log.info("the index of %s is not whole, so what it knew is read from the releases: %s", place.name, error)


def _added(place: Place, head: str, index: Index, one: Release, spec: DedupeSpec) -> None:
    """Index a release, or several that were merged, unless that was done."""
    parts = {part.run: part.dataset for part in one.merged or (one,)}
    lacking = [run for run, dataset in parts.items() if index.manifest.versions.get(run) != dataset]
    if VIEW not in one.rows or not lacking:
        return

    def rows() -> Iterator[tuple[Signed, list[str]]]:
        with index.beside() as folder:
            for shard in one.views.get(VIEW, ()):
                place.fetch(head, shard.path, folder / "shard.parquet")
                yield from released.signed_rows(str(folder / "shard.parquet"), spec)

    index.add(lacking[0], rows(), version=parts[lacking[0]])
    for run in lacking[1:]:
        index.add(run, (), version=parts[run])
    log.info("%s has taken in %s of %s", index.folder, one.version, place.name)
