"""The index of what was released, where a recipe names one, travels with the dataset: every release takes it along, and a run on
another machine fetches what it lacks before it asks."""

import json
import logging
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filters import near_duplicate
from filters.similarity.index import Index
from schemas.manifest import RunManifest
from schemas.recipe import DedupeSpec, Recipe
from thresher import released
from thresher.errors import PublishError, SourceError
from thresher.releases.place import Change, Place, open_place
from thresher.releases.repository import INDEX, INDEXED, read
from thresher.store import Store

log = logging.getLogger(__name__)


@contextmanager
def with_index(place: Place, head: str, manifest: RunManifest, made: Change) -> Iterator[Change]:
    """The change, and the index of what was released, where the recipe names one: its files are never changed, so only new ones
    are sent. Raises PublishError where the repository's index knows more than the one here."""
    recipe = Recipe.model_validate(manifest.recipe)
    if recipe.dedupe is None or recipe.dedupe.released is None:
        yield made
        return
    index = near_duplicate.open_index(recipe.dedupe, Path(manifest.base))
    with index.snapshot() as folder:
        wanted = {f"{INDEX}/{file.relative_to(folder)}": file for file in folder.rglob("*") if file.is_file()}
        if lacking := set(_known(place, head)) - set(json.loads(wanted[INDEXED].read_text())["releases"]):
            raise PublishError(
                f"{place.name}: {len(lacking)} releases came there since this run looked for what was released before; run it "
                "again (thresher run RECIPE --out RUN, or Retry): nothing is drawn anew, what repeats them is dropped"
            )
        there = {path for path in place.files(head) if path.startswith(f"{INDEX}/")}
        new = (set(wanted) - there) | {INDEXED}
        adds = {**made.adds, **{path: wanted[path] for path in sorted(new)}}
        yield Change(adds=adds, deletes=(*made.deletes, *sorted(there - set(wanted))))


def fetch_index(store: Store) -> None:
    """Have the run's index know what the repository's does: others released there too. Where a repository has releases and no
    index, and there is none here, one is made of its dataset. What cannot be read is logged; `with_index` looks again."""
    manifest = store.manifest()
    assert manifest is not None
    recipe = Recipe.model_validate(manifest.recipe)
    if recipe.publish.repo is None or recipe.dedupe is None or recipe.dedupe.released is None:
        return
    index, place = near_duplicate.open_index(recipe.dedupe, Path(manifest.base)), open_place(recipe.publish.repo)
    try:
        with place.explained():
            head = place.head()
            known = _known(place, head)
            if not known and not index.manifest.releases and read(place, head).releases:
                _made(place, recipe.dedupe, index.folder)
            elif set(known) - set(index.manifest.releases):
                _adopted(place, head, index)
    except PublishError as error:
        log.info("what %s knows of earlier releases was not read: %s", place.name, error)


# -- inside --------------------------------------------------------------------------------------------------------------


def _known(place: Place, head: str) -> list[str]:
    """The releases that the repository's index knows."""
    found: list[str] = json.loads(place.text(head, INDEXED) or "{}").get("releases", [])
    return found


def _adopted(place: Place, head: str, index: Index) -> None:
    index.folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{index.folder.name}-", dir=index.folder.parent) as folder:
        Path(folder, "index.json").write_text(place.text(head, INDEXED) or "")
        runs = sorted(path.removeprefix(f"{INDEX}/") for path in place.files(head) if path.startswith(f"{INDEX}/runs/"))
        for name in runs:
            to = Path(folder, name)
            to.parent.mkdir(parents=True, exist_ok=True)
            try:
                os.link(index.folder / name, to)  # what is here needs no fetching
            except OSError:
                place.fetch(head, f"{INDEX}/{name}", to)
        index.adopt(Path(folder))
    log.info("%s has taken in what %s knows of its releases", index.folder, place.name)


def _made(place: Place, spec: DedupeSpec, folder: Path) -> None:
    try:
        released.index_dataset(place.name, folder, spec)
    except SourceError as error:
        log.warning(
            "%s has releases and no index of them, so what repeats them is not found; make one: thresher index %s --out %s (%s)",
            place.name, place.name, folder, error,
        )  # fmt: skip
