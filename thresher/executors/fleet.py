"""A fleet: servers of one model on a Ray cluster, kept running, for clients of OpenAI's protocol.

    thresher fleet RECIPE --file FLEET           one actor of the cluster per server, with `vllm serve` beside it
    engine: {kind: openai_http, fleet: FLEET}    the file has one address per line, and is updated when servers come and go

A fleet is for servers that several runs or other programs share. A single run is faster with `executor.kind: ray`, without
HTTP. Ray Serve LLM is not used, because `ray[llm]` pins a version of vLLM. The client balances the load: it knows how many
tokens each server has in flight.
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
from thresher.durable import remove_leftovers, replace_file
from thresher.errors import EngineError, RecipeError, StoreError
from thresher.executors.ray import RayExecutor
from thresher.executors.ray_calls import address_here
from thresher.executors.ray_replicas import Replicas
from thresher.executors.server_progress import ServerProgress
from thresher.inputs.models import Model, of_spec
from thresher.samplers.orphans import GRACE_S, start_bound
from thresher.samplers.vllm_process import adapter_arguments, check_options, engine_arguments, set_environment

log = logging.getLogger(__name__)

CHECK_S = 2.0
"""Seconds between checks of a server's health, and of the list of servers."""
MOST_FAILURES = 5
"""Failed health checks in a row after which a server is replaced."""
PERIOD_S = 60.0
"""Seconds after which a server counts as started: if it dies earlier three times in a row, the fleet ends."""


class Server(AbstractContextManager["Server"]):
    """`vllm serve` in a process of its own on this machine. Entering it raises ModelError, and EngineError if it does not
    start."""

    url: str
    """Root of its API, which ends in /v1."""

    def __init__(self, recipe: Recipe, base: Path) -> None:
        self._recipe, self._base = recipe, base
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "Server":
        spec, model = self._recipe.engine, self._recipe.model
        assert isinstance(spec, VllmEngine), "start_fleet checks it"
        set_environment(spec)
        host = address_here()
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as free:
            free.bind((host, 0))
            port = free.getsockname()[1]
        self._root = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        self.url, self._log = f"{self._root}/v1", Path(tempfile.gettempdir(), f"thresher-fleet-{port}.log")
        found = of_spec(model, served=False, base=self._base)
        address: dict[str, Any] = {"model": found.path, "served_model_name": model.name, "host": host, "port": port}
        served = address | adapter_flags(found, model.adapter) | arguments(spec)
        command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", *flags(served)]
        with self._log.open("wb") as out:
            self._process = start_bound(command, out)
        while not self.healthy():
            if self._process.poll() is not None:
                raise EngineError(f"`vllm serve` stopped while it started on {socket.gethostname()}: {self._last_error()}")
            time.sleep(0.2)
        self._progress = ServerProgress(self._root, model.name, spec.silent_s)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(GRACE_S + 5)

    @property
    def runs(self) -> bool:
        """Whether its process runs."""
        return self._process is not None and self._process.poll() is None

    def healthy(self) -> bool:
        """Whether it answers that it can serve."""
        return _healthy(self._root, 30)

    def stalled(self) -> bool:
        """Whether it makes no token, not even one that it is asked for."""
        return self._progress.stalled()

    def _last_error(self) -> str:
        lines = [line for line in self._log.read_text(errors="replace").splitlines() if line.strip()]
        errors = [line for line in lines if "Error" in line or "error:" in line]
        return f"{(errors or lines or ['no output'])[-1].strip()[:300]} (log: {self._log})"


class _NoRedirections(urllib.request.HTTPRedirectHandler):
    """Whoever sends the question on to another address does not serve."""

    def redirect_request(self, *_: Any) -> None:
        return None


def _healthy(root: str, seconds: float) -> bool:
    """Whether a server answers within this time that it can serve."""
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}), _NoRedirections())
    try:
        with direct.open(f"{root}/health", timeout=seconds) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError, http.client.HTTPException):
        return False


def arguments(spec: VllmEngine) -> dict[str, Any]:
    """Return a recipe's engine in vLLM's own names.

    Each server has a random seed: servers with one seed, the default of `vllm serve`, would repeat each other's samples.
    """
    own = {"seed": secrets.randbits(31), "generation_config": "vllm", **engine_arguments(spec)}
    return {name: value for name, value in (own | spec.options).items() if value is not None}


def adapter_flags(model: Model, served_name: str | None) -> dict[str, Any]:
    """Return what serves the model's adapter, under its name in the recipe: nothing without one."""
    if model.adapter is None:
        return {}
    return {**adapter_arguments(model), "lora_modules": {"name": served_name, "path": model.adapter.path}}


def flags(values: Mapping[str, Any]) -> Iterator[str]:
    """Yield the arguments of a command: --name value, --name or --no-name for a boolean, JSON for lists and objects."""
    for name, value in values.items():
        flag = name.replace("_", "-")
        if isinstance(value, bool):
            yield f"--{flag}" if value else f"--no-{flag}"
        else:
            yield f"--{flag}"
            yield orjson.dumps(value).decode() if isinstance(value, dict | list) else str(value)


class Addresses:
    """The file with a fleet's addresses, one per line. It is complete at any time, and belongs to one fleet."""

    def __init__(self, path: Path) -> None:
        self.path, self._text = path, ""

    def create(self) -> None:
        """Create the file, empty; take it over from a fleet whose servers are gone. Raises StoreError for a file with other
        content, or that of a running fleet."""
        for url in (self._content() or "").split():
            if not url.startswith(("http://", "https://")):
                raise StoreError(
                    f"{self.path}: exists and lists no servers (found {url[:60]!r}); it is not overwritten, name another file "
                    "with --file"
                )
            if _healthy(url.removesuffix("/v1"), CHECK_S):
                raise StoreError(
                    f"{self.path}: belongs to another fleet, whose server {url} runs; end that one, or name another file with "
                    "--file"
                )
        self.write([])

    def write(self, urls: Sequence[str]) -> None:
        """Replace the addresses. Raises StoreError where the file cannot be written."""
        self._text = "".join(f"{url}\n" for url in urls)
        try:
            replace_file(self.path, self._text.encode(), durable=False)
            remove_leftovers(self.path.parent)
        except OSError as error:
            raise StoreError(f"{self.path}: cannot be written ({error.strerror or error}); name another with --file") from error

    def kept(self) -> bool:
        """Whether the file holds what was written last."""
        return self._content() == self._text

    def remove(self) -> None:
        """Remove the file, if it is still this fleet's."""
        if self.kept():
            self.path.unlink(missing_ok=True)

    def _content(self) -> str | None:
        """The content of the file; None where there is none."""
        try:
            return self.path.read_bytes().decode(errors="replace")
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StoreError(f"{self.path}: cannot be read ({error.strerror or error}); name another with --file") from error


def start_fleet(recipe: Recipe, base: Path, file: Path) -> "AbstractContextManager[Fleet]":
    """Return the fleet of a recipe: its model and engine, on the cluster of its executor. Entering it waits for the first server.
    The file of their addresses is created before any server starts, and removed at the end.

    Raises RecipeError for another engine or executor; StoreError where the file cannot be written, or has other content;
    EngineError where there is no cluster or no room, or no server starts; ModelError."""
    if recipe.models:
        raise RecipeError("models: a fleet serves one model; give it a recipe with `model`, and start a fleet for each model")
    if not isinstance(recipe.engine, VllmEngine):
        raise RecipeError(f"engine.kind: a fleet has vLLM servers, the recipe has {recipe.engine.kind}; set it to vllm")
    if not isinstance(recipe.executor, RayExecutorSpec):
        raise RecipeError(
            f"executor.kind: a fleet needs a Ray cluster, the recipe has {recipe.executor.kind}; add `--set executor.kind=ray`, "
            "and `--set executor.address=null` for a cluster of this machine only"
        )
    check_options(recipe.engine, ())
    of_spec(recipe.model, served=False, base=base)
    return _run_fleet(recipe, recipe.executor, base, Addresses(file))


class Fleet:
    """Servers that are replaced when they end."""

    def __init__(self, servers: Replicas, replicas: int, file: "Addresses") -> None:
        self._servers, self._file, self._stopped = servers, file, threading.Event()
        self._failure: EngineError | None = None
        for _ in range(replicas):
            threading.Thread(target=self._watch, daemon=True).start()

    @property
    def urls(self) -> list[str]:
        """URLs of the servers that are ready. Raises EngineError once servers die right after their start."""
        if self._failure is not None:
            raise self._failure
        return sorted(server.url for server in self._servers.members if server.slots)

    def keep(self, say: Callable[[str], None]) -> None:
        """Keep the file up to date until interrupted. Raises StoreError where it cannot be written any more, and what `urls`
        raises."""
        listed: list[str] = []
        while True:
            urls = self.urls
            if not (kept := self._file.kept()):
                say(f"{self._file.path} was changed or removed by another program; it is written again")
            if urls != listed or not kept:
                self._file.write(urls)
            for url in sorted(set(urls) ^ set(listed)):
                say(f"{url} {'is ready' if url in urls else 'is lost; another is started'}")
            listed = urls
            time.sleep(CHECK_S)

    def stop(self) -> None:
        """Stop replacing servers."""
        self._stopped.set()

    def _watch(self) -> None:
        """Watch one server after the other: the call of an actor fails when its process ends, and the executor replaces it."""
        while not self._stopped.is_set():
            try:
                self._servers.call(_watch_server, PERIOD_S)
            except EngineError as error:
                if not self._stopped.is_set():
                    self._failure = error
                return


@contextmanager
def _run_fleet(recipe: Recipe, spec: RayExecutorSpec, base: Path, file: Addresses) -> Iterator[Fleet]:
    file.create()
    try:
        with RayExecutor(spec, 0, engine=recipe.engine) as executor:
            executor.check_room(filters=False)
            with executor.engines(partial(Server, recipe, base), slots=_one_slot, wanted=_unchanged) as servers:
                fleet = Fleet(servers, spec.replicas, file)
                try:
                    yield fleet
                finally:
                    fleet.stop()
    finally:
        file.remove()


def _one_slot(_server: Server) -> int:
    return 1


def _unchanged() -> None:
    return None


def _watch_server(server: Server, _call: Callable[..., Any], seconds: float) -> None:
    """Watch a server for this time, in its actor; if it ends, is unhealthy or makes no token, end the actor's process."""
    failures, end = 0, time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(CHECK_S)
        failures = 0 if server.healthy() else failures + 1
        if failures >= MOST_FAILURES or not server.runs or (failures == 0 and server.stalled()):
            os._exit(1)
