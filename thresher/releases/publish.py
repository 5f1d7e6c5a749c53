"""Append a run to a dataset repository in one commit, or not at all.

    1. rows and types are checked against the committed schemas, and the gates are asked
    2. every shard is named after the hash of its content and sent ahead of the commit; no reader sees it yet
    3. the head and its manifest are read; a dataset that they hold is not published again
    4. shards, card, manifest and the index of released samples go into one commit whose parent is that head; if the head has
       moved, from 3 again                                                                        (thresher.releases.append)

After an interruption the same call resumes: shards that were sent are not sent again, and a commit whose answer was lost is found
in the manifest. Foreign files among the shards stop the release.
"""

import json
import logging
import tempfile
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from schemas.dataset import PublishSpec
from thresher import yaml_text
from thresher.auditing.cache import cached_audit
from thresher.auditing.compare import since
from thresher.dataset.write import dataset_finished
from thresher.dedupe import released
from thresher.errors import PublishError
from thresher.pool.run import Run
from thresher.releases.append import Candidate, Published, append
from thresher.releases.gates import drifted, gates
from thresher.releases.index_sync import compared_releases
from thresher.releases.places.open_place import open_place
from thresher.releases.places.place import Place, again
from thresher.releases.readme import stop_at_unreadable_card
from thresher.releases.release_files import checked_files, published_views, rows_by_view
from thresher.releases.repository import paths, read

__all__ = ["Published", "publish", "publish_spec", "published"]

log = logging.getLogger(__name__)

NOTE = "published.json"
"""In the run: the repository to which its dataset was published last."""


def publish(run: Run, spec: PublishSpec | None = None, *, force: str | None = None) -> Published:
    """Append the dataset of a finished run to a repository. `spec` replaces the recipe's `publish`; `force` is the reason for
    releasing what the gates refuse. Raises PublishError, and then nothing has changed; StoreError where the recipe of a run of
    others needs the user's consent."""
    spec = spec or run.recipe.publish
    run.require_consent(publishes=spec.repo == run.recipe.publish.repo)
    with run.store.writing("thresher publish"), tempfile.TemporaryDirectory(prefix="thresher-") as folder:
        return _publish_from(run, Path(run.store.path("dataset") if run.store.local else folder), spec, force)


def published(run: Run) -> bool:
    """Whether a run's current dataset was published to the repository that its recipe names."""
    store, entry = run.store, run.store.entry("dataset")
    if entry is None or not store.exists(NOTE):
        return False
    try:
        note = json.loads(store.read_bytes(NOTE))
        return (note["repo"], note["dataset"]) == (run.recipe.publish.repo, entry.key)
    except (ValueError, KeyError, TypeError, RecursionError):
        log.warning(
            "%s: damaged; the run is published again, which changes nothing where the repository has it", store.path(NOTE)
        )
        return False


def publish_spec(run: Run, changes: Mapping[str, Any], gates: Sequence[str] = ()) -> PublishSpec:
    """The `publish` of a run's recipe with changes, and with gates as NAME=VALUE. Raises PublishError."""
    spec = run.recipe.publish.model_dump(mode="json")
    for gate in gates:
        name, _, value = gate.partition("=")
        try:
            spec["gates"][name.strip()] = yaml_text.load(value)
        except yaml.YAMLError as error:
            raise PublishError(f"--gate {gate}: the value is not valid YAML") from error
    try:
        return PublishSpec.model_validate(spec | dict(changes))
    except ValidationError as error:
        first = error.errors()[0]
        raise PublishError(f"publish.{'.'.join(map(str, first['loc']))}: {first['msg']}, found {first['input']!r}") from error


# -- inside --------------------------------------------------------------------------------------------------------------


def _publish_from(run: Run, folder: Path, spec: PublishSpec, force: str | None) -> Published:
    """Publish the dataset in `folder`: the run's own, or an empty folder to which its files are copied from another store."""
    dataset = run.store.entry("dataset")
    if dataset is None or not dataset_finished(run):
        state = "has no finished dataset" if dataset is None else "its dataset is damaged, or older than what it is made from"
        raise PublishError(f"{run.root}: {state}; {run.command} writes it")
    audit = cached_audit(run)
    if spec.repo is None:
        raise PublishError(f"{run.root}: its recipe names no repository; set publish.repo, or --repo ORG/NAME")
    views = published_views(run, spec)
    files, shards = checked_files(run, dataset, views, folder)
    drift = since(run)
    refused = (*gates(run, audit, spec.gates), *drifted(drift, spec.gates))
    place = open_place(spec.repo)
    with place.explained():
        again(place, lambda: place.create(private=spec.private, gated=spec.gated))
        again(place, lambda: stop_at_unreadable_card(place))
        again(place, place.mend)
        publisher = again(place, place.who) if force is not None else ""
        candidate = Candidate(
            run=run,
            spec=spec,
            dataset=dataset,
            audit=audit,
            drift=drift,
            files=files,
            shards=shards,
            rows=({"sft": 0} if "sft" in (spec.views or run.recipe.dataset.views) else {}) | rows_by_view(shards),
            refused=refused,
            force=force,
            publisher=publisher,
        )
        _send_shards(place, candidate)
        compared = compared_releases(run.store)
        result = again(place, lambda: append(place, candidate, compared))
    note = {"repo": result.repo, "version": result.version, "commit": result.commit, "dataset": dataset.key}
    run.store.write_bytes(NOTE, (json.dumps(note, indent=1) + "\n").encode())
    return result


def _send_shards(place: Place, candidate: Candidate) -> None:
    """Ask the gates, and send the shards that the repository lacks; no reader sees them before the commit."""
    manifest = again(place, lambda: read(place, place.head()))
    candidate.stop_where_refused(manifest)
    released.add_run(candidate.run)
    present = paths(manifest)
    for path, file in candidate.files.items():
        if path not in present:
            again(place, partial(place.send, path, file, request=candidate.spec.create_pr))
