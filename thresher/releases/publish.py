"""A run is appended to a dataset repository in one commit, or not at all.

    1. rows and types are checked against the committed schemas, and the gates are asked
    2. every shard has the hash of its content for a name, and is sent ahead; nobody sees it yet
    3. the head is read, and the manifest as it is there; what is there already is not published again
    4. shards, card, manifest and the index of what was released go into one commit whose parent is that head; if the head has
       moved, from 3 on again

Whatever is cut off, the same call goes on: shards that were sent are not sent again, a commit whose answer was lost is found in
the manifest. What somebody else put among the shards stops the release.
"""

import hashlib
import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from schemas.dataset import PublishSpec
from schemas.manifest import Entry, RunManifest
from schemas.release import Release, RepositoryManifest, Shard
from thresher import __version__
from thresher.audit.audit import Audit
from thresher.audit.cache import cached_audit
from thresher.audit.compare import since
from thresher.audit.review import reviewed
from thresher.dataset import views
from thresher.dataset.card import card
from thresher.dataset.write import dataset_finished
from thresher.dedupe import released
from thresher.errors import PublishError
from thresher.pool.run import Run
from thresher.pool.store import Store
from thresher.releases.gates import against, drifted, figures, gates, stop_where_refused
from thresher.releases.index_sync import asked, with_index
from thresher.releases.places.open_place import open_place
from thresher.releases.places.place import Place, again
from thresher.releases.readme import readme, sizes
from thresher.releases.repository import change, counted, next_version, paths, read, stop_at_strangers
from thresher.releases.validation import validate

NOTE = "published.json"
"""In the run: where its dataset went last."""


@dataclass(frozen=True)
class Published:
    """What came of a release."""

    repo: str
    version: str
    commit: str | None
    """None where it was there already."""
    rows: dict[str, int]
    """Rows of each view, of this run."""
    request: str | None = None
    """Address of the pull request, with create_pr."""

    @property
    def words(self) -> str:
        """The result in one line."""
        if self.commit is None:
            return f"{self.repo}: already holds {self.version} ({counted(self.rows)}); nothing to do"
        return f"{self.repo}: {self.request or self.version} ({counted(self.rows)}), commit {self.commit[:12]}"


def publish(run: Run, spec: PublishSpec | None = None, *, force: str | None = None) -> Published:
    """Append the dataset of a finished run to a repository. `spec` stands in for the recipe's `publish`; `force` is the reason
    for releasing what the gates refuse. Raises PublishError, and then nothing has changed."""
    if run.store.local:
        return _published(run, run.store.path("dataset"), spec, force)
    with tempfile.TemporaryDirectory(prefix="thresher-") as folder:
        return _published(run, folder, spec, force)


def _published(run: Run, folder: str, spec: PublishSpec | None, force: str | None) -> Published:
    """`folder` is the run's dataset, or where its files are copied to from another store."""
    store, manifest = run.store, run.manifest
    entry, found = _finished(run)
    spec = spec or run.recipe.publish
    if spec.repo is None:
        raise PublishError(f"{store.root}: its recipe names no repository; set publish.repo, or --repo ORG/NAME")
    files = _files(store, entry, _views(manifest, spec), Path(folder))
    for name, shard in files.items():
        view = shard.path.split("/")[0]
        validate(Path(folder, name), view, manifest.model["prompt_format"])
    compared = since(run)
    refused = [*gates(run, found, spec.gates), *drifted(compared, spec.gates)]
    place = open_place(spec.repo)
    with place.explained():
        again(place, lambda: place.create(private=spec.private, gated=spec.gated))
        who = again(place, place.who) if force is not None else ""
        before = again(place, lambda: read(place, place.head()))
        stop_where_refused(refused + against(found, before, spec.gates), force, who)
        released.add_run(run)
        known = paths(before)
        for name, shard in files.items():
            if shard.path not in known:
                again(place, partial(place.send, shard.path, Path(folder, name), request=spec.create_pr))

        compared_with = asked(store)

        def attempt() -> Published:
            head = place.head()
            there = read(place, head)
            mine = _mine(there, manifest)
            if mine is not None and mine.dataset == entry.key and set(mine.rows) == set(_rows(files.values())):
                place.mend_tag(mine.version)
                return Published(place.name, mine.version, None, mine.rows)
            _stop_where_merged(place, there, mine)
            stop_at_strangers(place, head, there)
            columns = _columns(manifest, spec)
            _stop_at_drift(place, there, columns, manifest)
            given = stop_where_refused(refused + against(found, there, spec.gates), force, who)
            bumped = "patch" if mine is not None else "minor"
            release = Release(
                version=next_version(place, there, spec.versions, bumped),
                at=datetime.now(UTC).isoformat(timespec="seconds"),
                run=manifest.sampling_key,
                dataset=entry.key,
                name=manifest.name,
                thresher_version=__version__,
                figures=figures(found),
                forced=given,
                rows=_rows(files.values()),
                views=_by_view(files.values()),
            )
            did = f"{'replaced' if mine else 'added'} {manifest.name}: {counted(release.rows)}"
            then = RepositoryManifest(
                prompt_format=manifest.model["prompt_format"],
                columns=there.columns | columns,
                test_share=run.recipe.dataset.test_share,
                releases=(*(one for one in there.releases if one.run != release.run), release),
                revoked=there.revoked,
                changes=(f"{release.version}: {did}" + (f" (forced by {'; '.join(given)})" if given else ""), *there.changes),
            )
            made_card = card(manifest, found, sizes(then), repo=place.name, review=reviewed(run), drift=compared)
            text = readme(made_card, then, place.text(head, "README.md"), repo=place.name, lists_files=place.lists_files)
            by_path = {shard.path: Path(folder, name) for name, shard in files.items()}
            title = f"{release.version}: {did}"
            with with_index(place, head, there, run, change(there, then, text, by_path), compared=compared_with) as whole:
                made = place.commit(whole, title, parent=head, tag=release.version, request=spec.create_pr)
            return Published(place.name, release.version, made.revision, release.rows, made.request)

        made = again(place, attempt)
    note = {"repo": made.repo, "version": made.version, "commit": made.commit, "dataset": entry.key}
    store.write_bytes(NOTE, (json.dumps(note, indent=1) + "\n").encode())
    return made


def published(run: Run) -> bool:
    """Whether a run's dataset, as it is, was published to where its recipe says."""
    store, entry = run.store, run.store.entry("dataset")
    if entry is None or not store.exists(NOTE):
        return False
    note = json.loads(store.read_bytes(NOTE))
    return (note["repo"], note["dataset"]) == (run.recipe.publish.repo, entry.key)


def publish_spec(run: Run, changes: Mapping[str, Any], gates: Sequence[str] = ()) -> PublishSpec:
    """The `publish` of a run's recipe with these changes, and with gates given as NAME=VALUE. Raises PublishError."""
    spec = run.recipe.publish.model_dump(mode="json")
    for gate in gates:
        name, _, value = gate.partition("=")
        spec["gates"][name.strip()] = yaml.safe_load(value)
    try:
        return PublishSpec.model_validate(spec | dict(changes))
    except ValidationError as error:
        first = error.errors()[0]
        raise PublishError(f"publish.{'.'.join(map(str, first['loc']))}: {first['msg']}, found {first['input']!r}") from error


# -- inside --------------------------------------------------------------------------------------------------------------


def _finished(run: Run) -> tuple[Entry, Audit]:
    entry = run.store.entry("dataset")
    if entry is None or not dataset_finished(run):
        raise PublishError(f"{run.root}: has no finished dataset; finish the run first: {run.command}")
    return entry, cached_audit(run)


def _views(manifest: RunManifest, spec: PublishSpec) -> tuple[str, ...]:
    there = manifest.recipe.dataset.views
    if missing := [view for view in spec.views or () if view not in there]:
        raise PublishError(f"publish.views: {missing[0]} is not among the dataset's views ({', '.join(there)})")
    return tuple(view for view in there if spec.views is None or view in spec.views)


def _files(store: Store, entry: Entry, wanted: tuple[str, ...], folder: Path) -> dict[str, Shard]:
    """Each file of the dataset, and what it is in the repository; in `folder`, to which it is copied from another store."""
    found = {}
    for name, told in entry.facts["files"].items():
        view, split, file_name = name.split("/")
        if view not in wanted:
            continue
        path = folder / name
        if not store.local:
            path.parent.mkdir(parents=True, exist_ok=True)
            with store.explained(f"dataset/{name}", verb="read"):
                store.fs.get_file(store.path(f"dataset/{name}"), str(path))
        with open(path, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()[:16]
        if digest not in file_name:
            where = store.path(f"dataset/{name}")
            raise PublishError(f"{where}: is not what was written (its hash differs); remove {store.root}/dataset and run again")
        found[name] = Shard(
            path=f"{view}/{split}/{digest}.parquet",
            rows=told["rows"],
            memory_bytes=told["memory_bytes"],
            file_bytes=told["bytes"],
        )
    return found


def _by_view(every: Any) -> dict[str, tuple[Shard, ...]]:
    found: dict[str, tuple[Shard, ...]] = {}
    for shard in every:
        view = shard.path.split("/")[0]
        found[view] = (*found.get(view, ()), shard)
    return found


def _rows(every: Any) -> dict[str, int]:
    return {view: sum(shard.rows for shard in shards) for view, shards in _by_view(every).items()}


def _mine(there: RepositoryManifest, manifest: RunManifest) -> Release | None:
    """The release that this run has there already."""
    every = [merged for one in there.releases for merged in (one, *one.merged)]
    return next((one for one in every if one.run == manifest.sampling_key), None)


def _stop_where_merged(place: Place, there: RepositoryManifest, mine: Release | None) -> None:
    """Rows that were merged with those of other runs are no files that could be replaced."""
    whole = next((one for one in there.releases if mine in one.merged), None)
    if mine is not None and whole is not None:
        raise PublishError(
            f"{place.name}: {mine.version} of this run was merged into {whole.version} by thresher compact, so it cannot be "
            "replaced; publish to another repository, or take its samples back: thresher revoke"
        )


def _columns(manifest: RunManifest, spec: PublishSpec) -> dict[str, tuple[tuple[str, str], ...]]:
    schemas = {view: views.schema(view, manifest.model["prompt_format"]) for view in _views(manifest, spec)}
    return {view: tuple((field.name, str(field.type)) for field in schema) for view, schema in schemas.items()}


def _stop_at_drift(
    place: Place, there: RepositoryManifest, columns: Mapping[str, tuple[tuple[str, str], ...]], manifest: RunManifest
) -> None:
    """Columns, their order, and the prompts that are held out never change between releases."""
    for view, now in columns.items():
        before = there.columns.get(view, now)
        if before == now:
            continue
        lines = [f"- {name}: {kind}" for name, kind in before if (name, kind) not in now]
        lines += [f"+ {name}: {kind}" for name, kind in now if (name, kind) not in before]
        raise PublishError(
            "\n  ".join(
                [
                    f"{place.name}: the columns of {view} are not those of the releases before; publish to another repository:",
                    *(lines or ["the same columns in another order"]),
                ]
            )
        )
    test_share = manifest.recipe.dataset.test_share
    if there.releases and there.test_share != test_share:
        raise PublishError(
            f"{place.name}: holds out {there.test_share:g} of the prompts, the run {test_share:g}; prompts would change "
            "sides, so set dataset.test_share to what it was and run again, or publish to another repository"
        )
