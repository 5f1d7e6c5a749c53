"""What costs a pass over the pool is computed once per state of the run, and kept in RUN/audited/NAME.json.

Each file holds the key of the state it was computed from: thresher's version, and names, sizes and times of all files that are
read. `forget` removes them, so that everything is computed again: that also finds damage which left size and time of a file as
they were.
"""

import json
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from thresher import __version__, ids
from thresher.durable import remove_leftovers
from thresher.errors import StoreError
from thresher.pool.run import Run

T = TypeVar("T")

FOLDER = "audited"
_FOLDERS = ("samples", "verdicts", "corpus", "starts")
_FILES = ("run.json", "begun.json", "prompts.json", "prompts.parquet")


def kept(run: Run, name: str, kind: Any, compute: Callable[[], T]) -> T:
    """Return what was computed of this state of the run under this name, or compute and keep it. `kind` is its type: JSON values,
    or a dataclass of them, as pydantic reads them. A run that cannot be written to is computed each time."""
    store, file, key, adapter = run.store, f"{FOLDER}/{name}.json", state_of(run), TypeAdapter(kind)
    if store.exists(file):
        with suppress(StoreError, ValueError, KeyError, TypeError, ValidationError):  # what cannot be read is computed again
            content = json.loads(store.read_bytes(file))
            if content["key"] == key:
                value: T = adapter.validate_python(content[name])
                return value
    result = compute()
    with suppress(StoreError):
        content = {"key": key, name: adapter.dump_python(result)}
        store.write_bytes(file, json.dumps(content, default=float).encode(), durable=False)
        if store.local:
            remove_leftovers(store.path(FOLDER))
    return result


def forget(run: Run) -> None:
    """Remove all that is kept of a run's audit."""
    for name in run.store.names(FOLDER, ".json"):
        run.store.remove(f"{FOLDER}/{name}")


def state_of(run: Run) -> str:
    """Hash of the names, sizes and times of the files of a run's pool and verdicts; takes a few listings."""
    store, listed = run.store, []
    for folder in ("", *_FOLDERS):
        if not store.exists(folder):
            continue
        with store.explained(folder, verb="list"):
            infos = store.fs.ls(store.path(folder), detail=True)
        for info in infos:
            name = str(info["name"]).rsplit("/", 1)[-1]
            if folder or name in _FILES:
                time = next((info[key] for key in ("mtime", "LastModified", "created") if key in info), None)
                listed.append([folder, name, info["size"], str(time)])
    return ids.digest("state", __version__, run.root, sorted(listed))
