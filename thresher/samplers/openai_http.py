"""Any OpenAI-compatible server, or several of one model: `vllm serve` replicas, a hosted API.

The one async module: an event loop on a thread of its own, which several streams share. A group of completions is cut into
requests, all of them to one server, so that what is drawn has one source; another server draws the whole group again when that
one dies. How many requests a server gets at once rises by one per window of answers and halves when it balks. What fails is
drawn anew: nothing is kept of half an answer.

Every sampling field is sent with every request, because a server fills in what is missing from the model's generation_config.

Seeds are sent only for `seeds: sample`. A seeded request whose prompt is prefilled in pieces kills vLLM's CPU engine ("CPU
Generator does not use offset"), no server says which platform it runs on, and how another server seeds the n choices of one
request nobody knows. vLLM seeds choice i with seed + i; other servers are then asked for one completion at a time.
"""

import asyncio
import heapq
import ipaddress
import logging
import os
import queue
import random
import socket
import threading
import time
import urllib.request
from collections.abc import Iterable
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager, AsyncExitStack, suppress
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Any, Literal
from urllib.parse import urlsplit

import aiohttp
import numpy as np
import orjson
from numpy.typing import NDArray

from schemas.engines import HttpEngine
from schemas.sample import Message
from schemas.suggest import did_you_mean
from thresher.errors import EngineError, SourceError, ThresherError
from thresher.estimators.calibration import TOP_K, Quota, Sums
from thresher.samplers.openai_answers import Answer, Response, label_logprobs, read_answer
from thresher.samplers.sampler import NEUTRAL, Completion, Drawn, EngineFacts, Group, plain_text

log = logging.getLogger(__name__)

EXTENSIONS = ("top_k", "min_p", "repetition_penalty")
"""Sampling fields of vLLM's own; the rest of NEUTRAL every server takes."""
ALSO: dict[str, Any] = {
    "min_tokens": 0,
    "ignore_eos": False,
    "watermarking": False,
    "return_token_ids": True,
    "return_tokens_as_token_ids": True,
}
"""Sent to vLLM besides: what a server could be started with, and token ids instead of texts, which may be alike."""
OURS = {*NEUTRAL, *ALSO, "model", "messages", "prompt", "n", "seed", "stop", "stream", "logprobs", "top_logprobs"} | {
    "max_tokens", "max_completion_tokens", "best_of", "use_beam_search", "echo", "suffix", "logit_bias", "bad_words",
    "allowed_token_ids", "stop_token_ids", "include_stop_str_in_output", "logprob_token_ids", "response_format",
    "structured_outputs", "truncate_prompt_tokens",
}  # fmt: skip
"""Fields that engine.extra_body may not set: they decide what is sampled or recorded."""

LISTED = 20
"""Likeliest first tokens asked for where a label is wanted; OpenAI and vLLM give no more by default."""

_FIRST_LIMIT = 8.0
_INLINE_BYTES = 1 << 20
_CUTS = 3  # connection failures in a row that take a server out
_FAILURES, _WEIGHT = 3, {"failed": 1.0, "cut": 0.2, "busy": 0.0}  # of one request, on a server that answers others
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.5, 30.0
_PROBE_S = 2.0
_LIST_S = 5.0  # between two looks at which servers there are, where they may come and go
_CONTEXT = ("context length", "context_length", "context window", "context size", "max_model_len", "too long", "too many tokens")
_UNKNOWN = ("unrecognized", "unknown field", "unknown param", "extra_forbidden", "extra field", "extra input", "additional prop")


class _AttemptError(Exception):
    """An attempt that failed and is made again. `busy`: the server asks for less; `cut`: the connection broke; `failed`: the
    server tried and could not."""

    def __init__(self, kind: Literal["busy", "cut", "failed"], said: str, wait_s: float = 0.0) -> None:
        super().__init__(said)
        self.kind, self.wait_s = kind, wait_s


@dataclass(eq=False)
class _Job:
    """A group on its way. `rank` is its stream's priority, then the order of submission."""

    stream: "HttpStream"
    group: Group
    rank: tuple[int, int]
    endpoint: "_Endpoint | None" = None
    done: dict[int, Completion] = field(default_factory=dict)
    prompt_ids: NDArray[np.int32] | None = None
    tokens: int = 0
    guess: int = 0
    """Tokens it is expected to bring to the calibration; 0 where it is not calibrated."""
    found: list[Sums | None] = field(default_factory=list)
    tasks: set["asyncio.Task[None]"] = field(default_factory=set)
    over: bool = False

    def __lt__(self, other: "_Job") -> bool:
        return self.rank < other.rank


@dataclass(eq=False)
class _Request:
    """Completions `first` to `first + n - 1` of a group."""

    job: _Job
    first: int
    n: int
    tries: int = 0
    failures: float = 0.0

    def __lt__(self, other: "_Request") -> bool:
        return (self.job.rank, self.first) < (other.job.rank, other.first)


def addresses(urls: Iterable[str]) -> list[str]:
    """The same with each address that their host names stand for, in the order of the names, each once. Raises EngineError for a
    name that stands for none."""
    found: dict[str, None] = {}
    for url in urls:
        parts = urlsplit(url)
        try:
            there = socket.getaddrinfo(parts.hostname, parts.port or 80, type=socket.SOCK_STREAM)
        except OSError as error:
            raise EngineError(f"{url}: its name stands for no address ({error}); correct engine.base_urls") from error
        for address in sorted({one[4][0] for one in there}):
            host = f"[{address}]" if ":" in str(address) else address
            found[parts._replace(netloc=f"{host}:{parts.port or 80}").geturl()] = None
    return list(found)


def listed(fleet: Path) -> list[str]:
    """The addresses in a file, one on each line. Raises EngineError where it is not to be read or names none."""
    try:
        found = [line.strip() for line in fleet.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise EngineError(f"engine.fleet: {fleet} cannot be read ({error}); `thresher fleet` writes it") from error
    if not found:
        raise EngineError(f"engine.fleet: {fleet} names no server; wait for one, `thresher fleet` adds those that are ready")
    for number, line in enumerate(found, 1):
        if not line.startswith(("http://", "https://")):
            raise EngineError(
                f"engine.fleet: {fleet}, line {number}: wanted an address such as http://10.0.0.1:8000/v1, found {line[:80]!r}"
            )
    return found


class _Endpoint:
    """One server: what it understands, how many requests it gets at once, and those it has."""

    def __init__(self, url: str, client: aiohttp.ClientSession, limit: float) -> None:
        self.url, self.client, self.source = url.rstrip("/"), client, _source(url)
        self.up, self.trouble, self.cuts = False, "", 0
        self.vllm, self.version, self.context = False, "", 0
        self.extensions, self.length_field, self.top_k, self.logprobs = False, "max_tokens", TOP_K, True
        self.limit, self.shrunk_at, self.paused_until = limit, -1.0, 0.0
        self.in_flight: dict[_Request, float] = {}
        self.pending: list[_Request] = []
        self.tokens, self.length = 0, 0.0
        self.heard, self.asked = 0.0, False

    @property
    def shape(self) -> tuple[bool, str, int, bool]:
        """How a request to it looks at present."""
        return self.extensions, self.length_field, self.top_k, self.logprobs


class HttpStream:
    """See thresher.samplers.sampler.Stream."""

    def __init__(self, sampler: "HttpSampler", priority: int) -> None:
        self._sampler, self.priority = sampler, priority
        self.finished: queue.SimpleQueue[Drawn | ThresherError] = queue.SimpleQueue()

    def __enter__(self) -> "HttpStream":
        self._sampler._open(self)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._sampler._leave(self)

    def submit(self, groups: Iterable[Group]) -> None:
        self._sampler._call(self._sampler._accept, self, list(groups))

    def take(self, timeout: float) -> list[Drawn]:
        drawn: list[Drawn] = []
        with suppress(queue.Empty):
            while True:
                item = self.finished.get(timeout=0 if drawn else timeout)
                if isinstance(item, Drawn):
                    drawn.append(item)
                    continue
                self.finished.put(item)  # for the next call
                if drawn:
                    break
                raise type(item)(*item.args) from item
        return drawn


class HttpSampler:
    """A context manager that holds the connections; see thresher.samplers.sampler.Sampler."""

    facts: EngineFacts

    def __init__(
        self,
        spec: HttpEngine,
        model_name: str,
        *,
        quota: Quota,
        seeds: Literal["auto", "sample", "engine"],
        base: Path | None = None,
    ) -> None:
        taken = sorted(set(spec.extra_body) & OURS)
        if taken:
            raise EngineError(f"engine.extra_body.{taken[0]}: thresher sets this itself; take it out of the recipe")
        self._spec, self._name, self._quota, self._seeded = spec, model_name, quota, seeds == "sample"
        self._path = "/chat/completions" if spec.api == "chat" else "/completions"
        self._key = os.environ.get(spec.api_key_env or "", "").strip()
        if not (self._key.isascii() and self._key.isprintable()):
            raise EngineError(f"the environment variable {spec.api_key_env} holds characters that no key has; set it again")
        self._fleet = (base or Path()) / spec.fleet if spec.fleet else None
        self._urls = self._listed()
        self._endpoints: list[_Endpoint] = []
        self._streams: set[HttpStream] = set()
        self._jobs: set[_Job] = set()
        self._waiting: list[_Job] = []
        self._order, self._hopeless_s, self._warned = count(), 0.0, set[str]()
        self._ended: EngineError | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self._started: Future[None] = Future()
        self._thread = threading.Thread(target=self._live, name="openai_http", daemon=True)

    def __enter__(self) -> "HttpSampler":
        self._thread.start()
        try:
            self._started.result()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def stream(self, priority: int = 0) -> HttpStream:
        return HttpStream(self, priority)

    def close(self) -> None:
        """Give up what is in flight; streams that wait for it raise EngineError."""
        self._end(EngineError("the engine was stopped"))
        if self._loop is not None and self._task is not None:
            with suppress(RuntimeError):  # closed already
                self._loop.call_soon_threadsafe(self._task.cancel)
            self._thread.join(timeout=30)

    # -- called by streams, from their threads -------------------------------------------------------------------------

    def _open(self, stream: HttpStream) -> None:
        if self._ended is not None:
            raise EngineError(str(self._ended))
        self._streams.add(stream)

    def _leave(self, stream: HttpStream) -> None:
        self._streams.discard(stream)
        with suppress(EngineError):
            self._call(self._forget, stream)

    def _call(self, what: Any, *arguments: Any) -> None:
        """Have the event loop do something."""
        if self._ended is not None:
            raise EngineError(str(self._ended))
        if self._loop is None:
            raise EngineError("the engine was not started; use it as a context manager")
        try:
            self._loop.call_soon_threadsafe(what, *arguments)
        except RuntimeError as error:
            raise EngineError("the engine was stopped") from error

    def _end(self, error: EngineError) -> None:
        self._ended = self._ended or error
        for stream in list(self._streams):
            stream.finished.put(self._ended)

    def _listed(self) -> list[str]:
        """The servers that there are to be, each once."""
        urls = self._spec.base_urls if self._fleet is None else listed(self._fleet)
        return list(dict.fromkeys(url.rstrip("/") for url in (addresses(urls) if self._spec.every_address else urls)))

    # -- the loop's thread ---------------------------------------------------------------------------------------------

    def _live(self) -> None:
        try:
            asyncio.run(self._main())
        except asyncio.CancelledError:
            pass
        except ThresherError as error:
            self._started.set_exception(error)
        except BaseException as error:
            self._end(EngineError(f"{type(error).__name__}: {error}; what is finished is kept, run again to go on"))
            raise
        finally:
            if not self._started.done():
                self._started.set_exception(self._ended or EngineError("the engine was stopped"))

    async def _main(self) -> None:
        self._loop, self._task = asyncio.get_running_loop(), asyncio.current_task()
        if self._ended is not None:
            return
        async with AsyncExitStack() as self._clients:
            for url in self._urls:
                await self._add(url)
            await self._meet()
            async with asyncio.TaskGroup() as self._tasks:
                for endpoint in self._endpoints:
                    if not endpoint.up:
                        self._tasks.create_task(self._probe(endpoint))
                self._tasks.create_task(self._watch())
                if self._fleet is not None or self._spec.every_address:
                    self._tasks.create_task(self._follow())
                self._started.set_result(None)

    async def _add(self, url: str) -> _Endpoint:
        client = await self._clients.enter_async_context(self._client(url))
        self._endpoints.append(_Endpoint(url, client, min(_FIRST_LIMIT, self._spec.requests_in_flight)))
        return self._endpoints[-1]

    async def _follow(self) -> None:
        """Look again which servers there are. One that is listed no more is left out once it is down; as long as it answers it
        may go on."""
        while True:
            await asyncio.sleep(_LIST_S)
            try:
                self._urls = await asyncio.to_thread(self._listed)
            except EngineError as error:  # a name server or a disk may fail for a while
                log.info("%s", error)
                continue
            known = {endpoint.url for endpoint in self._endpoints}
            for url in self._urls:
                if url not in known:
                    self._tasks.create_task(self._probe(await self._add(url)))

    def _client(self, url: str) -> aiohttp.ClientSession:
        """A client of one server. A completion may take hours: what tells a dead server from a slow one is TCP keep-alive."""
        options = [(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)]
        for name, value in (("TCP_KEEPIDLE", 60), ("TCP_KEEPINTVL", 15), ("TCP_KEEPCNT", 8)):
            if hasattr(socket, name):  # not everywhere
                options.append((socket.IPPROTO_TCP, getattr(socket, name), value))

        def connected(address: Any) -> socket.socket:
            made = socket.socket(*address[:3])
            for option in options:
                made.setsockopt(*option)
            made.setblocking(False)
            return made

        parts = urlsplit(url)
        host = parts.hostname or ""
        proxy = None if _is_loopback(host) or urllib.request.proxy_bypass(host) else urllib.request.getproxies().get(parts.scheme)
        if self._key and parts.scheme == "http" and not _is_loopback(host):
            log.warning("%s: the key of %s travels in clear; use https", url, self._spec.api_key_env)
        return aiohttp.ClientSession(
            # Servers (uvicorn) close an idle connection after 5 s.
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=4, socket_factory=connected),
            headers={"Content-Type": "application/json"} | ({"Authorization": f"Bearer {self._key}"} if self._key else {}),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=self._spec.connect_timeout_s, sock_read=None),
            proxy=proxy,
        )

    async def _meet(self) -> None:
        """Ask every server what it is; goes on without those that cannot be reached, as long as there is one."""
        failed = {}
        for endpoint in self._endpoints:
            try:
                await self._greet(endpoint)
            except _AttemptError as setback:
                failed[endpoint] = str(setback)
        if len(failed) == len(self._endpoints):
            tried = "; ".join(f"GET {endpoint.url}/models: {said}" for endpoint, said in failed.items())
            where = self._fleet or "engine.base_urls"
            raise EngineError(f"no server can be reached ({tried}); start it, or correct {where}")
        for endpoint, said in failed.items():
            log.warning("%s cannot be reached (%s); going on without it, and trying it again", endpoint.url, said)
        up = [endpoint for endpoint in self._endpoints if endpoint.up]
        self.facts = EngineFacts(
            "openai_http",
            ", ".join(sorted({endpoint.version for endpoint in up})),
            self._spec.requests_in_flight * self._spec.completions_per_request * len(self._endpoints),
            "chat" if self._spec.api == "chat" else "text",
            "raw" if all(endpoint.vllm for endpoint in up) else "unknown",
        )

    async def _greet(self, endpoint: _Endpoint) -> None:
        """Learn what a server serves and understands. Raises EngineError where it is of no use."""
        response = await self._get(endpoint, f"{endpoint.url}/models")
        if response.status in (401, 403):
            raise self._no_key(endpoint, response)
        if response.status == 429 or response.status >= 500:
            raise _AttemptError("busy", f"status {response.status}")
        try:
            cards = {card["id"]: card for card in response.json()["data"]}
        except (ValueError, KeyError, TypeError) as error:
            raise EngineError(
                f"{endpoint.url}/models: wanted a list of models, found status {response.status} and "
                f"{self._clean(response.text)[:80]!r}; engine.base_urls are the roots of the API, which mostly end in /v1"
            ) from error
        if self._name not in cards:
            hint = did_you_mean(self._name, cards, cutoff=0.0)
            raise EngineError(f"{endpoint.url} does not serve {self._name}, only {', '.join(sorted(cards)) or 'nothing'}{hint}")
        card = cards[self._name]
        endpoint.vllm = self._spec.extensions == "vllm" or card.get("owned_by") == "vllm"
        endpoint.extensions = endpoint.vllm and self._spec.extensions != "none"
        endpoint.context = card.get("max_model_len") or 0
        endpoint.version = "vllm" if endpoint.vllm else "unknown"
        if endpoint.vllm:
            parts = urlsplit(endpoint.url)
            with suppress(_AttemptError, ValueError, KeyError, TypeError):
                said = (await self._get(endpoint, f"{parts.scheme}://{parts.netloc}/version")).json()
                endpoint.version = f"vllm {said['version']}"
        endpoint.up, endpoint.cuts = True, 0

    async def _get(self, endpoint: _Endpoint, url: str, timeout_s: float = 60.0) -> Response:
        return await self._exchange(endpoint, endpoint.client.get(url, timeout=aiohttp.ClientTimeout(total=timeout_s)))

    async def _exchange(self, endpoint: _Endpoint, request: AbstractAsyncContextManager[aiohttp.ClientResponse]) -> Response:
        try:
            async with request as response:
                content = await response.read()
                endpoint.heard = time.monotonic()
                return Response(response.status, response.headers.get("retry-after", ""), content)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise _AttemptError("cut", self._clean(f"{type(error).__name__} {error}".strip())) from error

    async def _probe(self, endpoint: _Endpoint) -> None:
        """Ask a server that is new, or was taken out, until it answers or is listed no more."""
        while not endpoint.up:
            await asyncio.sleep(random.uniform(_PROBE_S / 2, _PROBE_S))
            if endpoint.url not in self._urls and not (endpoint.pending or endpoint.in_flight):
                self._endpoints.remove(endpoint)
                await endpoint.client.close()
                return
            try:
                await self._greet(endpoint)
            except (_AttemptError, EngineError) as error:
                endpoint.trouble = str(error)
        log.warning("%s answers%s", endpoint.url, " again" if endpoint.trouble else "")
        self._fill()

    async def _alive(self, endpoint: _Endpoint) -> None:
        """Ask a server from which nothing has come for long whether it is there. Where it says nothing either, its requests are
        drawn by others: a stopped process, or a machine behind a broken switch, ends no connection."""
        since = endpoint.heard
        for again in range(_CUTS):
            await asyncio.sleep(_PROBE_S if again else 0)
            if not endpoint.up:
                break
            try:
                await self._get(endpoint, f"{endpoint.url}/models", self._spec.silent_s)
            except _AttemptError as error:
                endpoint.trouble = f"nothing came for {time.monotonic() - since:.0f} s, nor does it say that it is there: {error}"
            if endpoint.heard > since or not endpoint.up:
                break
        else:
            self._out(endpoint, endpoint.trouble)
            for job in {request.job for request in endpoint.in_flight if not request.job.over}:
                self._elsewhere(job)
        endpoint.asked = False

    def _out(self, endpoint: _Endpoint, why: str) -> None:
        """Send it nothing until it answers again."""
        endpoint.up = False
        seeds = self._seeded and endpoint.vllm
        hint = "; seeded requests kill vLLM's CPU engine: set sampling.seeds to engine" if seeds else ""
        log.warning("%s does not answer (%s); it is tried again%s", endpoint.url, why, hint)
        self._tasks.create_task(self._probe(endpoint))

    async def _watch(self) -> None:
        """Ask servers that are silent for long; give up once none has answered for long. Time during which a request is being
        worked on does not count."""
        patience = self._spec.give_up_after_s / 10
        step = min(1.0, patience, self._spec.silent_s / 10)
        while True:
            await asyncio.sleep(step)
            for endpoint in self._endpoints:
                waited = time.monotonic() - max(endpoint.heard, min(endpoint.in_flight.values(), default=time.monotonic()))
                if endpoint.up and not endpoint.asked and waited > self._spec.silent_s:
                    endpoint.asked = True
                    self._tasks.create_task(self._alive(endpoint))
            sent = [sent_at for endpoint in self._endpoints for sent_at in endpoint.in_flight.values()]
            worked_on = sent and min(sent) < time.monotonic() - patience
            self._hopeless_s = 0.0 if not self._jobs else self._hopeless_s + (0.0 if worked_on else step)
            if self._hopeless_s >= self._spec.give_up_after_s:
                self._hopeless_s = 0.0
                troubles = "; ".join(f"{endpoint.url}: {endpoint.trouble}" for endpoint in self._endpoints if endpoint.trouble)
                error = EngineError(
                    f"no server has answered for {self._spec.give_up_after_s:g} s ({troubles}); what is finished is kept, "
                    "run again to go on"
                )
                for stream in {job.stream for job in self._jobs}:
                    self._fail(stream, error)

    # -- from the queue to a server ------------------------------------------------------------------------------------

    def _accept(self, stream: HttpStream, groups: list[Group]) -> None:
        if stream in self._streams:
            for group in groups:
                self._queue(_Job(stream, group, (stream.priority, next(self._order))))
            self._fill()

    def _queue(self, job: _Job) -> None:
        self._jobs.add(job)
        heapq.heappush(self._waiting, job)

    def _fill(self) -> None:
        """Send what there is room for: the first in rank, to the server with the most room."""
        if self._ended is not None:
            return
        now = time.monotonic()
        ready = [endpoint for endpoint in self._endpoints if endpoint.up and endpoint.paused_until <= now]
        if any(endpoint.up for endpoint in self._endpoints):
            for endpoint in self._endpoints:
                if not endpoint.up:
                    for job in {request.job for request in endpoint.pending}:
                        self._elsewhere(job)
        while ready:
            endpoint = min(ready, key=lambda one: one.tokens / one.limit)
            if len(endpoint.in_flight) >= int(endpoint.limit) or not (endpoint.pending or self._waiting):
                ready.remove(endpoint)
            elif endpoint.pending and not (self._waiting and self._waiting[0].rank < endpoint.pending[0].job.rank):
                request = heapq.heappop(endpoint.pending)
                if not request.job.over:
                    endpoint.in_flight[request] = now
                    endpoint.tokens += request.n * request.job.group.parameters["max_tokens"]
                    task = self._tasks.create_task(self._run(endpoint, request))
                    request.job.tasks.add(task)
                    task.add_done_callback(request.job.tasks.discard)
            else:
                job = heapq.heappop(self._waiting)
                if not job.over:
                    self._place(endpoint, job)

    def _place(self, endpoint: _Endpoint, job: _Job) -> None:
        """Cut a group into requests to one server, and decide whether it is calibrated."""
        job.endpoint = endpoint
        n, greedy = job.group.n, job.group.parameters["temperature"] == 0
        if not greedy and endpoint.top_k and endpoint.logprobs:
            guess = max(1, round(n * (endpoint.length or job.group.parameters["max_tokens"])))
            job.guess = guess if self._quota.take(endpoint.source, guess) else 0
        alone = greedy or (self._seeded and not endpoint.vllm)  # vLLM refuses n > 1 for a greedy request
        size = 1 if alone else self._spec.completions_per_request
        for first in range(0, n, size):
            heapq.heappush(endpoint.pending, _Request(job, first, min(size, n - first)))

    def _finish(self, job: _Job, found: Sums | None = None) -> None:
        """Take a job off the books."""
        job.over = True
        self._jobs.discard(job)
        for task in job.tasks - {asyncio.current_task()}:
            task.cancel()
        if job.endpoint is not None:
            if job.guess:
                self._quota.back(job.endpoint.source, job.guess, job.tokens, found)
            job.endpoint.pending = [request for request in job.endpoint.pending if request.job is not job]
            heapq.heapify(job.endpoint.pending)

    def _elsewhere(self, job: _Job) -> None:
        """Draw a whole group again, on any server."""
        self._finish(job)
        self._queue(_Job(job.stream, job.group, job.rank))

    def _forget(self, stream: HttpStream) -> None:
        for job in [job for job in self._jobs if job.stream is stream]:
            self._finish(job)
        self._waiting = [job for job in self._waiting if not job.over]
        heapq.heapify(self._waiting)

    def _fail(self, stream: HttpStream, error: ThresherError) -> None:
        self._forget(stream)
        stream.finished.put(error)

    # -- one request ---------------------------------------------------------------------------------------------------

    async def _run(self, endpoint: _Endpoint, request: _Request) -> None:
        job = request.job
        try:
            answer = await self._ask(endpoint, request)
        except _AttemptError as setback:
            await self._again(endpoint, request, setback)
        except ThresherError as error:
            self._fail(job.stream, error)
        else:
            self._keep(endpoint, request, answer)
        finally:
            del endpoint.in_flight[request]
            endpoint.tokens -= request.n * job.group.parameters["max_tokens"]
            self._fill()

    def _keep(self, endpoint: _Endpoint, request: _Request, answer: Answer) -> None:
        job, got = request.job, len(answer.completions)
        # Up to the first setback it doubles with every round of answers; vLLM, which only queues, never gives one.
        step = 1.0 if endpoint.shrunk_at < 0 else 1 / endpoint.limit
        endpoint.limit = min(self._spec.requests_in_flight, endpoint.limit + step)
        endpoint.cuts, self._hopeless_s = 0, 0.0
        if answer.tokens:
            length = answer.tokens / got
            endpoint.length = 0.9 * endpoint.length + 0.1 * length if endpoint.length else length
        job.done.update(enumerate(answer.completions, request.first))
        job.prompt_ids = answer.prompt_ids
        job.found.append(answer.found)
        job.tokens += answer.tokens
        if job.guess and answer.found is None and endpoint.top_k:
            endpoint.top_k = 0
            self._warn(endpoint, "gives too few top log-probabilities, so its samples are not calibrated")
        for first in range(request.first + got, request.first + request.n, got):  # a server may give fewer than asked for
            left = request.first + request.n - first
            heapq.heappush(endpoint.pending, _Request(job, first, min(got, left)))
        if len(job.done) == job.group.n:
            parts = [part for part in job.found if part is not None]
            found = np.sum(parts, axis=0) if job.guess and len(parts) == len(job.found) else None
            completions = tuple(job.done[index] for index in range(job.group.n))
            self._finish(job, found)
            job.stream.finished.put(Drawn(job.group.number, completions, job.prompt_ids, None, endpoint.source, found))

    async def _again(self, endpoint: _Endpoint, request: _Request, setback: _AttemptError) -> None:
        """Make an attempt again, later: after what the server asks for, or a random time that doubles at most (full jitter)."""
        now, job = time.monotonic(), request.job
        endpoint.trouble = str(setback)
        if setback.kind != "failed" and endpoint.in_flight[request] > endpoint.shrunk_at:  # once for all that were on their way
            endpoint.limit, endpoint.shrunk_at = max(1.0, endpoint.limit / 2), now
        endpoint.cuts = endpoint.cuts + 1 if setback.kind == "cut" else 0
        if endpoint.cuts >= _CUTS and endpoint.up:
            self._out(endpoint, str(setback))
        request.failures += _WEIGHT[setback.kind]
        if request.failures >= _FAILURES and await self._works(endpoint, request):
            error = f"{endpoint.source} fails on it each time, and not on others: {setback}"
            self._finish(job)
            job.stream.finished.put(Drawn(job.group.number, (), source=endpoint.source, error=error))
            return
        request.tries += 1
        delay = max(setback.wait_s, random.uniform(0, min(_LONGEST_WAIT_S, _FIRST_WAIT_S * 2 ** min(request.tries, 10))))
        if setback.wait_s:
            endpoint.paused_until = max(endpoint.paused_until, now + setback.wait_s)
        asyncio.get_running_loop().call_later(delay, self._return, endpoint, request)

    def _return(self, endpoint: _Endpoint, request: _Request) -> None:
        if not request.job.over:
            heapq.heappush(endpoint.pending, request)
        self._fill()

    async def _works(self, endpoint: _Endpoint, request: _Request) -> bool:
        """Whether a server answers another request than the one it fails on."""
        group = request.job.group
        other = replace(group, messages=(Message("user", "Hello"),), n=1, parameters={**group.parameters, "max_tokens": 1})
        try:
            response = await self._post(endpoint, _Request(_Job(request.job.stream, other, request.job.rank), 0, 1))
        except _AttemptError:
            return False
        return response.status == 200

    async def _post(self, endpoint: _Endpoint, request: _Request) -> Response:
        body = orjson.dumps(self._body(endpoint, request))
        return await self._exchange(endpoint, endpoint.client.post(endpoint.url + self._path, data=body))

    async def _ask(self, endpoint: _Endpoint, request: _Request) -> Answer:
        """The server's answer. Raises _AttemptError, or EngineError or SourceError where trying again is no use."""
        group = request.job.group
        while True:
            shape, listed = endpoint.shape, endpoint.top_k if request.job.guess else 0
            response = await self._post(endpoint, request)
            if response.status == 200:
                break
            if endpoint.shape == shape:  # else another request has learnt meanwhile what is wrong with it
                self._refused(endpoint, request, response)
        seed = self._seed(endpoint, request)
        try:
            if len(response.content) < _INLINE_BYTES:  # a thread would cost more than reading it
                answer = read_answer(response.content, request.n, listed, seed)
            else:
                answer = await asyncio.to_thread(read_answer, response.content, request.n, listed, seed)
        except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
            raise _AttemptError("failed", f"an answer that cannot be read: {type(error).__name__}: {error}"[:300]) from error
        if group.labels:
            said = replace(answer.completions[0], label_logprobs=label_logprobs(response.content, group.labels))
            return replace(answer, completions=(said,), found=None)
        if endpoint.logprobs and answer.completions[0].logprobs is None:
            self._warn(endpoint, "gives no log-probabilities; its samples have none and are not calibrated")
        longest = group.parameters["max_tokens"]
        if endpoint.context and answer.prompt_ids is not None and len(answer.prompt_ids) + longest > endpoint.context:
            raise _too_long(group, f"{len(answer.prompt_ids)} tokens", f"the context of {endpoint.context}")
        for one in answer.completions:
            if endpoint.vllm and one.finish_reason == "length" and one.token_ids is not None and len(one.token_ids) < longest:
                raise EngineError(
                    f"{endpoint.url} cut a completion at {len(one.token_ids)} tokens, though {longest} were asked for; start it "
                    "without max_new_tokens in its generation config, or lower sampling.max_tokens"
                )
        return answer

    def _seed(self, endpoint: _Endpoint, request: _Request) -> int | None:
        """The seed of a request, if it has one. What is not vLLM may not take more than 31 bits."""
        group = request.job.group
        if not self._seeded or not group.seeds or group.parameters["temperature"] == 0:
            return None
        return group.seeds[request.first] % (2**63 if endpoint.vllm else 2**31)

    def _body(self, endpoint: _Endpoint, request: _Request) -> dict[str, Any]:
        group, values = request.job.group, request.job.group.parameters
        body: dict[str, Any] = {**self._spec.extra_body, "model": self._name, "n": request.n, "stream": False}
        body |= {name: values[name] for name in NEUTRAL if endpoint.extensions or name not in EXTENSIONS}
        body[endpoint.length_field] = values["max_tokens"]
        if values["stop"]:
            body["stop"] = values["stop"]
        if endpoint.extensions:
            body |= ALSO
        else:
            for name in EXTENSIONS:
                if values[name] != NEUTRAL[name]:
                    raise EngineError(
                        f"sampling.{name}: {endpoint.url} takes no such field, so {values[name]} cannot be sent; take it out of "
                        "the recipe, or set engine.extensions to vllm if the server knows it"
                    )
        if (seed := self._seed(endpoint, request)) is not None:
            body["seed"] = seed
        if endpoint.logprobs:
            listed = endpoint.top_k if request.job.guess else 0
            body |= {"logprobs": True, "top_logprobs": listed} if self._spec.api == "chat" else {"logprobs": listed}
        if group.labels:
            body |= self._to_choose(endpoint, group.labels)
        if self._spec.api == "chat":
            body["messages"] = [{"role": message.role, "content": message.content} for message in group.messages]
        else:
            body["prompt"] = plain_text(group.messages)
        return body

    def _to_choose(self, endpoint: _Endpoint, labels: tuple[str, ...]) -> dict[str, Any]:
        """Fields that ask for one of the labels: by the log-probabilities of the first token, or by structured output."""
        fields: dict[str, Any] = {"return_tokens_as_token_ids": False} if endpoint.extensions else {}
        if endpoint.extensions:
            fields["structured_outputs"] = {"choice": list(labels)}
        if endpoint.logprobs:
            return fields | ({"logprobs": True, "top_logprobs": LISTED} if self._spec.api == "chat" else {"logprobs": LISTED})
        fields[endpoint.length_field] = 64
        if not endpoint.extensions:
            verdict: dict[str, Any] = {"type": "object", "properties": {"verdict": {"type": "string", "enum": list(labels)}}}
            verdict |= {"required": ["verdict"], "additionalProperties": False}
            fields["response_format"] = {
                "type": "json_schema",
                "json_schema": {"name": "verdict", "strict": True, "schema": verdict},
            }
        return fields

    def _refused(self, endpoint: _Endpoint, request: _Request, response: Response) -> None:
        """Raise what an answer other than 200 means; returns where the request can be sent again at once in another shape."""
        status, said = response.status, self._clean(response.message)
        if status in (408, 429, 503):
            raise _AttemptError("busy", f"status {status}: {said}", response.wait_s)
        if status >= 500:
            raise _AttemptError("failed", f"status {status}: {said}", response.wait_s)
        if status in (401, 403):
            raise self._no_key(endpoint, response)
        low = said.lower()
        if status in (400, 413, 422):
            if any(word in low for word in _CONTEXT):
                raise _too_long(request.job.group, "its tokens", f"the server ({said})")
            if "max_completion_tokens" in low and endpoint.length_field == "max_tokens" and self._spec.api == "chat":
                endpoint.length_field = "max_completion_tokens"
                return
            unknown = any(word in low for word in (*EXTENSIONS, *ALSO, *_UNKNOWN)) and "must be" not in low
            if endpoint.extensions and self._spec.extensions == "auto" and unknown:
                self._warn(endpoint, f"refuses vLLM's fields, so it is sent OpenAI's only ({said})")
                endpoint.extensions = False
                return
            if "logprobs" in low and endpoint.logprobs:
                if request.job.guess and endpoint.top_k:
                    endpoint.top_k = 5 if endpoint.top_k > 5 else 0
                    if not endpoint.top_k:
                        self._warn(endpoint, f"gives no top log-probabilities, so its samples are not calibrated ({said})")
                else:
                    endpoint.logprobs = False
                    self._warn(endpoint, f"gives no log-probabilities; its samples have none and are not calibrated ({said})")
                return
        gone = "; it serves the model no longer" if status == 404 else ""
        raise EngineError(f"{endpoint.url}{self._path}: status {status}: {said}{gone}")

    def _no_key(self, endpoint: _Endpoint, response: Response) -> EngineError:
        name = self._spec.api_key_env
        where = f"{endpoint.url}: status {response.status}"
        if name is None:
            return EngineError(f"{where}: it wants a key; name the environment variable that holds it with engine.api_key_env")
        what = f"the key in the environment variable {name} is refused" if self._key else f"environment variable {name} is empty"
        return EngineError(f"{where}: {what}; set it, or another and engine.api_key_env")

    def _warn(self, endpoint: _Endpoint, what: str) -> None:
        """Log once."""
        if (once := f"{endpoint.url} {what.partition(' (')[0]}") not in self._warned:
            self._warned.add(once)
            log.warning("%s %s", endpoint.url, what)

    def _clean(self, text: str) -> str:
        """Text that may be shown: a server or a library may quote the key."""
        return text.replace(self._key, "[key]") if self._key else text


def _too_long(group: Group, tokens: str, context: str) -> SourceError:
    return SourceError(
        f"prompt {group.messages[-1].content[:60]!r}: {tokens} and sampling.max_tokens {group.parameters['max_tokens']} do not "
        f"fit {context}; shorten the prompt, lower max_tokens or start the server with a longer context"
    )


def _source(url: str) -> str:
    """host:port."""
    parts = urlsplit(url)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    return f"{host}:{parts.port or (443 if parts.scheme == 'https' else 80)}"


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
