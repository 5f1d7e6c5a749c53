"""What a scheduled run works at: its turn among the runs of a dataset, and its directory.

Runs of a deployment live in FOLDER/NAME-TIME, by the time they were scheduled for, which is in their salt too. `scheduled.json`
in each says who began it and how it ended. A run that begins goes on with the oldest one of its deployment that did not end, and
begins its own where there is none. One run at a time works at a dataset, whatever its deployment: a concurrency limit of Prefect,
held by a lease that a dead holder does not renew.
"""

import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from prefect import get_run_logger, runtime
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate
from prefect.client.schemas.objects import ConcurrencyLeaseHolder
from prefect.concurrency.sync import concurrency
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound
from pydantic import BaseModel, ValidationError

from flows.reporting import refusal
from schemas.repeats import ReleasedSpec
from thresher.errors import PublishError, StoreError
from thresher.inputs.recipe_file import Loaded
from thresher.pool.store import Store
from thresher.releases.places.open_place import open_place
from thresher.run import steps

if TYPE_CHECKING:
    from logging import Logger, LoggerAdapter

NOTE = "scheduled.json"
LEASE_SECONDS = 60
"""How long the turn of a run that died stays taken; the server's least."""
ATTEMPTS = 3
"""Runs that work at one directory before later ones leave it."""


class Scheduled(BaseModel):
    """Of a directory that a deployment's run began."""

    deployment: str
    slot: str
    """Time it was scheduled for, UTC."""
    salt: str
    flow_runs: tuple[str, ...]
    """Ids of the flow runs that worked at it."""
    state: Literal["begun", "refused", "done"] = "begun"
    """`refused`: a gate refused to publish it."""


@contextmanager
def slot(loaded: Loaded, out: str | None, salt: str | None) -> Iterator[steps.Begun]:
    """The run that this flow run is to do, opened, once it is its turn; `out` is the folder of the runs. What becomes of it is
    noted in its directory."""
    folder, log = (out or "data/runs").rstrip("/"), get_run_logger()
    loaded = remembering(loaded, out)
    with _turn(turn_name(loaded, folder), log):
        begun, note = _taken(loaded, folder, salt, log)
        store = Store(begun.root)
        try:
            yield begun
        except PublishError as error:
            if refusal(error):
                store.write_model(NOTE, note.model_copy(update={"state": "refused"}))
            raise
        store.write_model(NOTE, note.model_copy(update={"state": "done"}))


def remembering(loaded: Loaded, out: str | None) -> Loaded:
    """The recipe, with an index of what its dataset released where it says nothing of one (dedupe.released): beside the runs, or
    among this machine's caches where those are on an object store, for then the dataset's repository keeps it."""
    recipe, folder = loaded.recipe, (out or "data/runs").rstrip("/")
    if recipe.dedupe is None or "released" in recipe.dedupe.model_fields_set:
        return loaded
    store = Store(folder)
    if store.local:
        place = Path(store.path("released"))
    elif recipe.publish.repo is not None:
        place = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "thresher" / "released"
    else:
        get_run_logger().warning(
            "what earlier runs released is not known to this one: nothing is published, and %s is on no disk; name a folder with "
            "dedupe.released.index, or a repository with publish.repo", folder
        )  # fmt: skip
        return loaded
    index = ReleasedSpec(index=str(place / turn_name(loaded, folder).removeprefix("thresher-")))
    return replace(loaded, recipe=recipe.model_copy(update={"dedupe": recipe.dedupe.model_copy(update={"released": index})}))


def turn_name(loaded: Loaded, folder: str) -> str:
    """Name of the concurrency limit of the dataset: what a run publishes to, or its folder where it does not."""
    repo = loaded.recipe.publish.repo
    where = Store(f"{folder}/{loaded.recipe.name}").path("") if repo is None else located(repo)
    short = re.sub(r"[^A-Za-z0-9._-]+", "-", where).strip("-")[-60:]
    return f"thresher-{short}-{hashlib.sha256(where.encode()).hexdigest()[:8]}"


def located(repo: str) -> str:
    """A repository's name, as it is from every directory."""
    from thresher.releases.places.folder import Folder

    return repo if "://" in repo or not isinstance(open_place(repo), Folder) else Store(repo).path("")


# -- inside --------------------------------------------------------------------------------------------------------------


@contextmanager
def _turn(name: str, log: "Logger | LoggerAdapter[Any]") -> Iterator[None]:
    """Wait until no other run works at the dataset. A lease that cannot be renewed does not end the run: releases are appended
    one at a time whoever writes, and a directory belongs to one deployment, of which Prefect runs one at a time."""
    with get_client(sync_client=True) as client:
        try:
            client.read_global_concurrency_limit_by_name(name)
        except ObjectNotFound:
            try:
                client.create_global_concurrency_limit(GlobalConcurrencyLimitCreate(name=name, limit=1))
            except ObjectAlreadyExists:
                log.debug("another run made %s just now", name)
    log.info("waiting for the turn at the dataset (concurrency limit %s)", name)
    holder = ConcurrencyLeaseHolder(type="flow_run", id=runtime.flow_run.id)
    with concurrency(name, lease_duration=LEASE_SECONDS, strict=True, holder=holder, raise_on_lease_renewal_failure=False):
        yield


def _taken(loaded: Loaded, folder: str, salt: str | None, log: "Logger | LoggerAdapter[Any]") -> tuple[steps.Begun, Scheduled]:
    """Open the directory this flow run worked at before, else the oldest that did not end, else a new one."""
    me, deployment = str(runtime.flow_run.id), str(runtime.deployment.name)
    time = runtime.flow_run.scheduled_start_time.strftime("%Y%m%dT%H%M%S")
    there = {root: note for root, note in _notes(folder) if note.deployment == deployment}
    mine = [root for root, note in there.items() if me in note.flow_runs]
    left = [root for root, note in there.items() if root not in mine and note.state == "begun"]
    for root in [*mine, *sorted(left, key=lambda root: there[root].slot)]:
        note = there[root]
        if salt not in (None, note.salt):
            log.warning("%s is left unfinished: it has the salt %r, wanted is %r", root, note.salt, salt)
            continue
        if root not in mine and len(note.flow_runs) >= ATTEMPTS:
            log.warning("%s is left unfinished: %d runs worked at it and none ended; look at their logs", root, ATTEMPTS)
            continue
        try:
            begun = steps.begin(loaded, root, salt=note.salt)
        except StoreError as error:
            log.warning("%s is left unfinished: %s", root, error)
            continue
        log.info("going on with %s, which was begun for %s", root, note.slot)
        return begun, _noted(root, note.model_copy(update={"flow_runs": tuple(dict.fromkeys((*note.flow_runs, me)))}))
    for further in ("", f"-{me}"):  # others may be due at the same second
        root = f"{folder}/{loaded.recipe.name}-{time}{further}"
        drawn = salt or f"{time}-{deployment}{further}"
        note = Scheduled(deployment=deployment, slot=time, salt=drawn, flow_runs=(me,))
        if not Store(root).exists("run.json") and Store(root).write_first(NOTE, note):
            break
    log.info("beginning %s", root)
    return steps.begin(loaded, root, salt=note.salt), note


def _noted(root: str, note: Scheduled) -> Scheduled:
    Store(root).write_model(NOTE, note)
    return note


def _notes(folder: str) -> Iterator[tuple[str, Scheduled]]:
    """Every directory in the folder that a deployment's run began; a note that cannot be read counts as none."""
    for name in Store(folder).folders():
        root = f"{folder}/{name}"
        try:
            if Store(root).exists(NOTE):
                yield root, Scheduled.model_validate_json(Store(root).read_bytes(NOTE))
        except (ValidationError, StoreError):
            continue
