"""The directory of a scheduled run, and its turn among the runs of a dataset.

Runs of a deployment are in FOLDER/NAME-TIME, by the time that they were scheduled for, which is part of their salt too.
`scheduled.json` in each names its flow runs and its state. A flow run resumes the oldest unfinished run of its deployment, and
starts a new one if there is none. Only one flow run at a time works on a dataset, whatever its deployment: this is a concurrency
limit of Prefect, held by a lease that a dead holder does not renew.
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
from thresher.errors import HeldError, PublishError, StoreError
from thresher.inputs.recipe_file import Loaded
from thresher.pool.store import Store
from thresher.releases.places.folder import Folder
from thresher.releases.places.open_place import open_place
from thresher.running import steps

if TYPE_CHECKING:
    from logging import Logger, LoggerAdapter

NOTE = "scheduled.json"
LEASE_SECONDS = 60
"""How long a dead flow run keeps its turn; the least that the server allows."""
ATTEMPTS = 3
"""Flow runs that work on one directory before later ones leave it unfinished."""


class Scheduled(BaseModel):
    """The content of `scheduled.json`: the state of a directory that a deployment's flow run started."""

    deployment: str
    slot: str
    """Time that it was scheduled for, UTC."""
    salt: str
    flow_runs: tuple[str, ...]
    """Ids of the flow runs that worked on it."""
    state: Literal["begun", "refused", "done"] = "begun"
    """`refused`: a gate refused to publish it."""


@contextmanager
def slot(loaded: Loaded, out: str | None, salt: str | None) -> Iterator[steps.Begun]:
    """Wait for the turn at the dataset, and open the run that this flow run works on; `out` is the folder of the runs. Its state
    is noted in its directory."""
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
    """Return the recipe with an index of released samples, if it does not set `dedupe.released`. The index is in the folder of
    the runs. If that is on an object store, it is in this machine's cache, because the dataset's repository holds a copy."""
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
            "samples are not compared with those of earlier runs: nothing is published, and %s is not on a local disk; set "
            "dedupe.released.index to a folder, or publish.repo to a repository", folder
        )  # fmt: skip
        return loaded
    index = ReleasedSpec(index=str(place / turn_name(loaded, folder).removeprefix("thresher-")))
    return replace(loaded, recipe=recipe.model_copy(update={"dedupe": recipe.dedupe.model_copy(update={"released": index})}))


def turn_name(loaded: Loaded, folder: str) -> str:
    """Return the name of the dataset's concurrency limit, from the repository that a run publishes to, else from its folder."""
    repo = loaded.recipe.publish.repo
    address = Store(f"{folder}/{loaded.recipe.name}").path("") if repo is None else located(repo)
    short = re.sub(r"[^A-Za-z0-9._-]+", "-", address).strip("-")[-60:]
    return f"thresher-{short}-{hashlib.sha256(address.encode()).hexdigest()[:8]}"


def located(repo: str) -> str:
    """Return a repository's name, with the path of a folder made absolute."""
    return repo if "://" in repo or not isinstance(open_place(repo), Folder) else Store(repo).path("")


# -- inside --------------------------------------------------------------------------------------------------------------


@contextmanager
def _turn(name: str, log: "Logger | LoggerAdapter[Any]") -> Iterator[None]:
    """Wait until no other flow run works on the dataset. A lease that cannot be renewed does not end the flow run: releases are
    atomic without it, and a directory belongs to one deployment, and Prefect runs one flow run of a deployment at a time."""
    with get_client(sync_client=True) as client:
        try:
            client.read_global_concurrency_limit_by_name(name)
        except ObjectNotFound:
            try:
                client.create_global_concurrency_limit(GlobalConcurrencyLimitCreate(name=name, limit=1))
            except ObjectAlreadyExists:
                log.debug("another flow run created %s just now", name)
    log.info("waiting for the turn at the dataset (concurrency limit %s)", name)
    holder = ConcurrencyLeaseHolder(type="flow_run", id=runtime.flow_run.id)
    with concurrency(name, lease_duration=LEASE_SECONDS, strict=True, holder=holder, raise_on_lease_renewal_failure=False):
        yield


def _taken(loaded: Loaded, folder: str, salt: str | None, log: "Logger | LoggerAdapter[Any]") -> tuple[steps.Begun, Scheduled]:
    """Open the directory that this flow run worked on before, else the oldest unfinished one, else a new one."""
    flow_run, deployment = str(runtime.flow_run.id), str(runtime.deployment.name)
    time = runtime.flow_run.scheduled_start_time.strftime("%Y%m%dT%H%M%S")
    notes = {root: note for root, note in _notes(folder) if note.deployment == deployment}
    own = [root for root, note in notes.items() if flow_run in note.flow_runs]
    unfinished = [root for root, note in notes.items() if root not in own and note.state == "begun"]
    for root in [*own, *sorted(unfinished, key=lambda root: notes[root].slot)]:
        note = notes[root]
        if salt not in (None, note.salt):
            log.warning("%s is left unfinished: its salt is %r, this run wants %r", root, note.salt, salt)
            continue
        if root not in own and len(note.flow_runs) >= ATTEMPTS:
            log.warning("%s is left unfinished: %d flow runs worked on it and none finished; see their logs", root, ATTEMPTS)
            continue
        try:
            begun = steps.begin(loaded, root, salt=note.salt)
        except HeldError:
            raise
        except StoreError as error:
            log.warning("%s is left unfinished: %s", root, error)
            continue
        log.info("resuming %s, which was started for %s", root, note.slot)
        return begun, _noted(root, note.model_copy(update={"flow_runs": tuple(dict.fromkeys((*note.flow_runs, flow_run)))}))
    for further in ("", f"-{flow_run}"):  # other flow runs may be due at the same second
        root = f"{folder}/{loaded.recipe.name}-{time}{further}"
        drawn = salt or f"{time}-{deployment}{further}"
        note = Scheduled(deployment=deployment, slot=time, salt=drawn, flow_runs=(flow_run,))
        if not Store(root).exists("run.json") and Store(root).write_first(NOTE, note):
            break
    log.info("starting %s", root)
    return steps.begin(loaded, root, salt=note.salt), note


def _noted(root: str, note: Scheduled) -> Scheduled:
    Store(root).write_model(NOTE, note)
    return note


def _notes(folder: str) -> Iterator[tuple[str, Scheduled]]:
    """The directories in the folder that a deployment's flow run started; a note that cannot be read counts as none."""
    for name in Store(folder).folders():
        root = f"{folder}/{name}"
        try:
            if Store(root).exists(NOTE):
                yield root, Scheduled.model_validate_json(Store(root).read_bytes(NOTE))
        except (ValidationError, StoreError):
            continue
