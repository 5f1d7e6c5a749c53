"""A fleet: servers of one model on a Ray cluster, kept alive, for whoever speaks OpenAI's protocol.

    thresher fleet RECIPE --file FLEET       an actor of the cluster for each server, `vllm serve` beside it
    engine: {kind: openai_http, fleet: FLEET}    the file has an address on each line, and is written anew when one comes or goes

For servers that several runs, or other programs, are to share: one run alone is better off with `executor.kind: ray`, without
HTTP between. Ray Serve LLM is not used, for `ray[llm]` pins a version of vLLM; what balances the load is the client, which knows
how many tokens each server has in flight.
"""

import http.client
import logging
import os
import secrets
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

import orjson

from schemas.engines import VllmEngine
from schemas.executors import RayExecutorSpec
from schemas.recipe import Recipe
from thresher.errors import EngineError, RecipeError, StoreError
from thresher.executors.ray import RayExecutor, Replicas, address_here
from thresher.inputs.models import resolve
from thresher.samplers.orphans import GRACE_S, start_bound
from thresher.samplers.vllm_process import engine_arguments, set_environment

log = logging.getLogger(__name__)

LOOK_S = 2.0
"""Seconds between two looks at a server's health, and at which servers there are."""
SICK = 5
"""Looks in a row that a server may fail before it is ended, and another begun."""
PERIOD_S = 60.0
"""Seconds after which a server counts as one that lives: one that dies earlier, thrice in a row, ends the fleet."""


class Server(AbstractContextManager["Server"]):
    """`vllm serve` in a process of its own on this machine. Raises EngineError where it would not start, ModelError."""

    url: str
    """Root of its API."""

    def __init__(self, recipe: Recipe, base: Path) -> None:
        self._recipe, self._base = recipe, base
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "Server":
        spec, model = self._recipe.engine, self._recipe.model
        assert isinstance(spec, VllmEngine), "whoever begins a fleet has looked"
        set_environment(spec)
        host = address_here()
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as free:
            free.bind((host, 0))
            port = free.getsockname()[1]
        self._root = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        self.url, self._log = f"{self._root}/v1", Path(tempfile.gettempdir(), f"thresher-fleet-{port}.log")
        path = resolve(model.name, model.revision, base=self._base).path
        named: dict[str, Any] = {"model": path, "served_model_name": model.name, "host": host, "port": port}
        command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", *flags(named | arguments(spec))]
        with self._log.open("wb") as out:
            self._process = start_bound(command, out)
        while not self.well():
            if self._process.poll() is not None:
                raise EngineError(f"`vllm serve` ended while it started on {socket.gethostname()}: {self._last_words()}")
            time.sleep(0.2)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(GRACE_S + 5)

    @property
    def runs(self) -> bool:
        """Whether its process is there."""
        return self._process is not None and self._process.poll() is None

    def well(self) -> bool:
        """Whether it says that it can serve."""
        return _well(self._root, 30)

    def _last_words(self) -> str:
        lines = [line for line in self._log.read_text(errors="replace").splitlines() if line.strip()]
        faults = [line for line in lines if "Error" in line or "error:" in line]
        return f"{(faults or lines or ['it said nothing'])[-1].strip()[:300]} (all of it: {self._log})"


def _well(root: str, seconds: float) -> bool:
    """Whether a server says that it can serve."""
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(f"{root}/health", timeout=seconds) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError, http.client.HTTPException):
        return False


def arguments(spec: VllmEngine) -> dict[str, Any]:
    """A recipe's engine in vLLM's own names. A fleet serves many runs: each server has a random seed, for those with one seed, as
    `vllm serve` has by default, would repeat each other's samples."""
    own = {"seed": secrets.randbits(31), "generation_config": "vllm", **engine_arguments(spec)}
    return {name: value for name, value in (own | spec.options).items() if value is not None}


def flags(values: Mapping[str, Any]) -> Iterator[str]:
    """Arguments of a command: --name value, --name or --no-name for a truth value, JSON for what has parts."""
    for name, value in values.items():
        flag = name.replace("_", "-")
        if isinstance(value, bool):
            yield f"--{flag}" if value else f"--no-{flag}"
        else:
            yield f"--{flag}"
            yield orjson.dumps(value).decode() if isinstance(value, dict | list) else str(value)


class Addresses:
    """The file with a fleet's addresses, one on each line: whole at any time, and nobody else's."""

    def __init__(self, path: Path) -> None:
        self.path, self._text = path, ""

    def begin(self) -> None:
        """Make it, empty. Raises StoreError where there is something else, or the file of a fleet that lives; one that is left of
        a fleet whose servers are gone is taken over."""
        for url in (self._there() or "").split():
            if not url.startswith(("http://", "https://")):
                raise StoreError(
                    f"{self.path}: is there already and lists no servers (found {url[:60]!r}); nothing is overwritten, name "
                    "another with --file"
                )
            if _well(url.removesuffix("/v1"), LOOK_S):
                raise StoreError(
                    f"{self.path}: is kept by another fleet, whose server {url} is well; end that one, or name another file with "
                    "--file"
                )
        self.write([])

    def write(self, urls: Sequence[str]) -> None:
        """Raises StoreError where it cannot be written."""
        self._text = "".join(f"{url}\n" for url in urls)
        new = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        try:
            new.write_text(self._text, encoding="utf-8")
            new.replace(self.path)
        except OSError as error:
            raise StoreError(f"{self.path}: cannot be written ({error.strerror or error}); name another with --file") from error

    def kept(self) -> bool:
        """Whether it holds what was written last."""
        return self._there() == self._text

    def end(self) -> None:
        """Remove it, if it is still this fleet's."""
        if self.kept():
            self.path.unlink(missing_ok=True)

    def _there(self) -> str | None:
        """What it holds; None where there is none."""
        try:
            return self.path.read_bytes().decode(errors="replace")
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StoreError(f"{self.path}: cannot be read ({error.strerror or error}); name another with --file") from error


def begin(recipe: Recipe, base: Path, file: Path) -> "AbstractContextManager[Fleet]":
    """The fleet of a recipe: its model and engine, on the cluster of its executor. Entered, it has one server at least. The file
    for their addresses is there, empty, before any begins, and goes with the last.

    Raises RecipeError where the recipe is of another engine or executor; StoreError where the file cannot be written, or is
    something else's; EngineError where there is no cluster or no room, or where no server starts; ModelError."""
    if not isinstance(recipe.engine, VllmEngine):
        raise RecipeError(f"engine.kind: a fleet is of vLLM servers, the recipe has {recipe.engine.kind}; set it to vllm")
    if not isinstance(recipe.executor, RayExecutorSpec):
        raise RecipeError(
            f"executor.kind: a fleet needs a Ray cluster, the recipe has {recipe.executor.kind}; add `--set executor.kind=ray`, "
            "and `--set executor.address=null` for one of this machine alone"
        )
    resolve(recipe.model.name, recipe.model.revision, base=base)
    return _begin(recipe, recipe.executor, base, Addresses(file))


class Fleet:
    """Servers that are begun again when they end."""

    def __init__(self, held: Replicas, replicas: int, file: "Addresses") -> None:
        self._held, self._file, self._over = held, file, threading.Event()
        self._failure: EngineError | None = None
        for _ in range(replicas):
            threading.Thread(target=self._watch, daemon=True).start()

    @property
    def urls(self) -> list[str]:
        """Of the servers that are ready. Raises EngineError once they die as soon as they are begun."""
        if self._failure is not None:
            raise self._failure
        return sorted(one.url for one in self._held.members if one.slots)

    def keep(self, say: Callable[[str], None]) -> None:
        """Keep their addresses in the file, and it in its place, until interrupted. Raises StoreError where it cannot be written
        any more, and what `urls` raises."""
        before: list[str] = []
        while True:
            now = self.urls
            if not (kept := self._file.kept()):
                say(f"{self._file.path} was changed or removed by somebody else; it is written anew")
            if now != before or not kept:
                self._file.write(now)
            for url in sorted(set(now) ^ set(before)):
                say(f"{url} {'is ready' if url in now else 'is lost; another is begun'}")
            before = now
            time.sleep(LOOK_S)

    def end(self) -> None:
        """Watch them no more."""
        self._over.set()

    def _watch(self) -> None:
        """Stay with one server after the other: a call of an actor ends, with an error, when its process does."""
        while not self._over.is_set():
            try:
                self._held.call(_stay, PERIOD_S)
            except EngineError as error:
                if not self._over.is_set():
                    self._failure = error
                return


@contextmanager
def _begin(recipe: Recipe, spec: RayExecutorSpec, base: Path, file: Addresses) -> Iterator[Fleet]:
    file.begin()
    try:
        with RayExecutor(spec, 0, engine=recipe.engine) as executor:
            executor.room(filters=False)
            with executor.engines(partial(Server, recipe, base), slots=_one, wanted=_as_many) as held:
                fleet = Fleet(held, spec.replicas, file)
                try:
                    yield fleet
                finally:
                    fleet.end()
    finally:
        file.end()


def _one(_server: Server) -> int:
    return 1


def _as_many() -> None:
    return None


def _stay(server: Server, _apart: Callable[..., Any], seconds: float) -> None:
    """Stay beside a server; where it ends or is sick this process ends, and the executor begins another elsewhere."""
    sick, until = 0, time.monotonic() + seconds
    while time.monotonic() < until:
        time.sleep(LOOK_S)
        sick = 0 if server.well() else sick + 1
        if sick >= SICK or not server.runs:
            os._exit(1)
