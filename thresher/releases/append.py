"""One commit that appends a run's dataset to a repository, or replaces what the run published before.

`Candidate` holds what was prepared before the repository was read; `append` reads the head and commits onto it. It raises
MovedError if another publisher was faster, and is then called again.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from schemas.dataset import PublishSpec
from schemas.manifest import Entry
from schemas.release import Release, RepositoryManifest, Shard
from thresher import __version__
from thresher.auditing.audit import Audit
from thresher.auditing.compare import Since
from thresher.auditing.review import reviewed
from thresher.dataset import views
from thresher.dataset.card import card
from thresher.disclosure import public_text, servers_among
from thresher.errors import PublishError
from thresher.pool.run import Run
from thresher.releases.gates import against, figures, stop_where_refused
from thresher.releases.index_sync import with_index
from thresher.releases.places.place import Change, Place
from thresher.releases.readme import cards_of, mended_card, sizes
from thresher.releases.release_files import by_view, published_views
from thresher.releases.repository import change, counted, next_version, read, shards, stop_at_damage, stop_at_strangers


@dataclass(frozen=True)
class Candidate:
    """A run's dataset, ready to be released."""

    run: Run
    spec: PublishSpec
    dataset: Entry
    audit: Audit
    drift: Since | None
    """What changed since the run before; None without an earlier run."""
    files: Mapping[str, Path]
    """Local file of each shard, by its path in the repository."""
    shards: tuple[Shard, ...]
    """The shards that have rows."""
    rows: Mapping[str, int]
    """The number of rows of each view, of which some may have none."""
    refused: tuple[str, ...]
    """Reasons of the run itself against its release."""
    force: str | None
    """Reason for releasing it although a gate refuses."""
    publisher: str
    """Account that forces the release; empty without `force`."""

    def stop_where_refused(self, manifest: RepositoryManifest) -> tuple[str, ...]:
        """Ask the gates, those that compare it with earlier releases too. Returns what the card notes of a forced release. Raises
        PublishError if a gate refuses and the release is not forced."""
        reasons = [*self.refused, *against(self.audit, manifest, self.spec.gates)]
        forced = stop_where_refused(reasons, self.force, self.publisher)
        if self.run.recipe.dataset.engine_details:
            return forced
        servers = servers_among(test.source for test in self.audit.calibration)
        return tuple(public_text(text, servers) for text in forced)


@dataclass(frozen=True)
class Published:
    """The result of publishing."""

    repo: str
    version: str
    commit: str | None
    """None if the repository held the release already."""
    rows: dict[str, int]
    """Rows of each view, of this run."""
    request: str | None = None
    """Address of the pull request, with create_pr."""
    mended: tuple[str, ...] = ()
    """Files of the release that were missing or changed, and were sent again."""

    @property
    def words(self) -> str:
        """The result in one line."""
        if self.commit is None:
            return f"{self.repo}: already holds {self.version} ({counted(self.rows)}); nothing to do"
        if self.mended:
            sent = f"sent {len(self.mended)} damaged files of {self.version} again: {', '.join(self.mended)}"
            return f"{self.repo}: {sent}; {self.request or f'commit {self.commit[:12]}'}"
        return f"{self.repo}: {self.request or self.version} ({counted(self.rows)}), commit {self.commit[:12]}"


def append(place: Place, candidate: Candidate, compared: dict[str, str]) -> Published:
    """Commit a candidate onto the head of a repository. `compared` holds the releases that the run was compared with;
    those that it is compared with here are added to it. Raises PublishError if the release is refused, and then nothing has
    changed."""
    head = place.head()
    manifest = read(place, head)
    earlier = _earlier(manifest, candidate.run)
    if earlier is not None and earlier.dataset == candidate.dataset.key and set(earlier.rows) == set(candidate.rows):
        place.mend_tag(earlier.version)
        return _mended(place, head, manifest, candidate, earlier)
    _stop_if_merged(place, manifest, earlier)
    replaced = [] if earlier is None else [shard.path for own in earlier.views.values() for shard in own]
    damage = stop_at_strangers(place, head, manifest, mended={*candidate.files, *replaced})
    _stop_if_columns_change(place, manifest, candidate)
    _stop_if_split_changes(place, manifest, candidate.run)
    forced = candidate.stop_where_refused(manifest)
    version = next_version(place, manifest, candidate.spec.versions, "minor" if earlier is None else "patch")
    release = _release(candidate, version, forced)
    summary = f"{'replaced' if earlier else 'added'} {release.name}: {counted(release.rows)}"
    after = _manifest_with(manifest, candidate, release, summary)
    cards = cards_of(place, head, head, after, _card(place, after, candidate))
    release_change = change(manifest, after, cards, candidate.files, damage)
    with with_index(place, head, manifest, candidate.run, release_change, compared=compared) as complete:
        commit = place.commit(complete, f"{version}: {summary}", parent=head, tag=version, request=candidate.spec.create_pr)
    return Published(place.name, version, commit.revision, release.rows, commit.request)


# -- inside --------------------------------------------------------------------------------------------------------------


def _earlier(manifest: RepositoryManifest, run: Run) -> Release | None:
    """The release of this run that the repository holds."""
    releases = [part for release in manifest.releases for part in (release, *release.merged)]
    return next((release for release in releases if release.run == run.key), None)


def _mended(place: Place, head: str, manifest: RepositoryManifest, candidate: Candidate, earlier: Release) -> Published:
    """The release that the repository holds, with files sent again that are missing there or were changed: shards, and a card
    that does not name them. Raises PublishError if shards of other runs are damaged."""
    damage = place.damage(head, shards(manifest).values(), whole=candidate.files)
    adds: dict[str, Path | bytes] = {path: candidate.files[path] for path in sorted(set(damage) & set(candidate.files))}
    adds |= mended_card(place, head, manifest)
    own = tuple(adds)
    revision, request = None, None
    if own:
        mending = Change(adds=adds)
        message = f"Send {len(own)} damaged files of {earlier.version} again"
        commit = place.commit(mending, message, parent=head, tag=None, request=candidate.spec.create_pr)
        revision, request = commit.revision, commit.request
    stop_at_damage(place, manifest, {path: words for path, words in damage.items() if path not in own})
    return Published(place.name, earlier.version, revision, earlier.rows, request, own)


def _release(candidate: Candidate, version: str, forced: tuple[str, ...]) -> Release:
    return Release(
        version=version,
        at=datetime.now(UTC).isoformat(timespec="seconds"),
        run=candidate.run.key,
        dataset=candidate.dataset.key,
        name=candidate.run.manifest.name,
        thresher_version=__version__,
        figures=figures(candidate.audit),
        forced=forced,
        rows=dict(candidate.rows),
        views=by_view(candidate.shards),
    )


def _manifest_with(manifest: RepositoryManifest, candidate: Candidate, release: Release, summary: str) -> RepositoryManifest:
    """The manifest with a release added, in the place of an earlier one of the same run."""
    note = f" (forced by {'; '.join(release.forced)})" if release.forced else ""
    return RepositoryManifest(
        prompt_format=candidate.run.prompt_format,
        columns=manifest.columns | _columns(candidate),
        test_share=candidate.run.recipe.dataset.test_share,
        releases=(*(earlier for earlier in manifest.releases if earlier.run != release.run), release),
        revoked=manifest.revoked,
        changes=(f"{release.version}: {summary}{note}", *manifest.changes),
    )


def _card(place: Place, manifest: RepositoryManifest, candidate: Candidate) -> str:
    """The card of the run, for the repository."""
    run = candidate.run
    return card(
        run.manifest,
        candidate.audit,
        sizes(manifest),
        prompt_format=run.prompt_format,
        repo=place.name,
        review=reviewed(run),
        drift=candidate.drift,
    )


def _columns(candidate: Candidate) -> dict[str, tuple[tuple[str, str], ...]]:
    """Names and types of the columns of each view."""
    run = candidate.run
    schemas = {view: views.schema(view, run.prompt_format) for view in published_views(run, candidate.spec)}
    return {view: tuple((field.name, str(field.type)) for field in schema) for view, schema in schemas.items()}


def _stop_if_merged(place: Place, manifest: RepositoryManifest, earlier: Release | None) -> None:
    """Rows that were merged with those of other runs have no files of their own that could be replaced."""
    whole = next((release for release in manifest.releases if earlier in release.merged), None)
    if earlier is not None and whole is not None:
        raise PublishError(
            f"{place.name}: {earlier.version} of this run was merged into {whole.version} by thresher compact, so it cannot be "
            "replaced; publish to another repository, or revoke its samples: thresher revoke"
        )


def _stop_if_columns_change(place: Place, manifest: RepositoryManifest, candidate: Candidate) -> None:
    """Columns and their order never change between releases."""
    for view, columns in _columns(candidate).items():
        released = manifest.columns.get(view, columns)
        if released == columns:
            continue
        lines = [f"- {name}: {kind}" for name, kind in released if (name, kind) not in columns]
        lines += [f"+ {name}: {kind}" for name, kind in columns if (name, kind) not in released]
        lines = lines or ["the same columns in another order"]
        message = f"{place.name}: the columns of {view} differ from those of earlier releases; publish to another repository:"
        raise PublishError("\n  ".join([message, *lines]))


def _stop_if_split_changes(place: Place, manifest: RepositoryManifest, run: Run) -> None:
    """The share of prompts that are held out never changes between releases."""
    test_share = run.recipe.dataset.test_share
    if manifest.releases and manifest.test_share != test_share:
        raise PublishError(
            f"{place.name}: holds out {manifest.test_share:g} of the prompts, the run {test_share:g}; prompts would change "
            f"their split, so set dataset.test_share={manifest.test_share:g} and run again, or publish to another repository"
        )
