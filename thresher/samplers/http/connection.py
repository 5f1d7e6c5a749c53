"""HTTP requests to one server: the client, the key, network errors, how many requests it gets, and when.

A request goes to the address of the recipe and to no other one: a redirection of a prompt is an error, and one of a GET is
followed only within the scheme, host and port that were asked.
"""

import asyncio
import logging
import os
import socket
import time
import urllib.request
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urljoin, urlsplit

from filters import trust
from schemas.engines import HttpEngine
from thresher.credentials import hidden
from thresher.errors import EngineError
from thresher.samplers.http.answers import WORDS, Response

if TYPE_CHECKING:
    import aiohttp  # takes a while, so it is imported when a connection is opened

log = logging.getLogger(__name__)


LONGEST_LIST = 8 << 20
"""Bytes of the longest answer to a request without a limit of its own, such as a list of models."""
LONGEST_ERROR = 1 << 20
"""Bytes of an error that are read, besides the request that it may repeat. The rest is left."""
SLOWEST = 1024
"""Bytes per second at which an answer must arrive in the mean, once it has begun and after a time of give_up_after_s. White space
before it, by which some servers keep a connection open while they work, does not begin it."""
REDIRECTIONS = frozenset({301, 302, 303, 307, 308})
MOST_INTERIM = 100
"""Interim answers (status 1xx) to one request."""
MOST_REDIRECTIONS = 3
"""Redirections of one GET that are followed."""


FIRST_LIMIT = 8.0
"""Concurrent requests that a new server gets."""


class AttemptError(Exception):
    """A failed request that is worth repeating.

    `busy`: the server asks for fewer requests; `cut`: the connection broke; `failed`: the server tried and could not.
    """

    def __init__(self, kind: Literal["busy", "cut", "failed"], message: str, wait_s: float = 0.0) -> None:
        super().__init__(message)
        self.kind, self.wait_s = kind, wait_s


class PromptRefusedError(Exception):
    """A server refuses a prompt, and answers others with the same parameters. It is `lasting` where the prompt itself is the
    reason; a limit of money or traffic, or a guard in front of the server, may let it pass another time."""

    def __init__(self, message: str, *, lasting: bool = True) -> None:
        super().__init__(message)
        self.lasting = lasting


@dataclass(frozen=True)
class ApiKey:
    """The key of a service. It appears in no message: a server or a library may quote it, so messages pass through `hide`."""

    variable: str | None
    """The environment variable that holds it."""
    value: str = field(repr=False)

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.value}"} if self.value else {}

    def hide(self, text: str) -> str:
        """Return the text without the key, and without the password of a proxy."""
        return hidden(text.replace(self.value, "[key]") if self.value else text)

    def refused(self, url: str, status: int) -> EngineError:
        """Return the error of a server that refuses the key."""
        if self.variable is None:
            hint = "it needs a key; name the environment variable that holds it with engine.api_key_env"
            return EngineError(f"{url}: status {status}: {hint}")
        problem = (
            f"the key in the environment variable {self.variable} is refused"
            if self.value
            else f"environment variable {self.variable} is empty"
        )
        return EngineError(f"{url}: status {status}: {problem}; set it, or name another variable with engine.api_key_env")


def read_key(variable: str | None) -> ApiKey:
    """Read the key from an environment variable. Raises EngineError for a value that cannot be a key."""
    value = os.environ.get(variable or "", "").strip()
    if not (value.isascii() and value.isprintable()):
        raise EngineError(f"the environment variable {variable} has characters that no key has; set it again")
    return ApiKey(variable, value)


@dataclass(frozen=True)
class Waits:
    """Seconds between attempts."""

    first_retry_s: float = 0.5
    """Longest wait before the first repetition of a request; doubles with each further one."""
    longest_retry_s: float = 30.0
    probe_s: float = 2.0
    """Between two questions to a server that does not answer."""
    list_s: float = 5.0
    """Between two readings of the list of servers, if it can change."""


class RateLimit:
    """How many concurrent requests a server gets.

    The limit doubles with each round of answers until the server first refuses work; after that it rises by 1 per round. Each
    refusal halves it, once for all requests that were in flight at that time. Times are those of time.monotonic().
    """

    def __init__(self, most: float) -> None:
        self.most, self.limit = most, min(FIRST_LIMIT, most)
        self.paused_until = 0.0
        self._shrunk_at = -1.0

    def grow(self) -> None:
        """Count a correct answer."""
        step = 1.0 if self._shrunk_at < 0 else 1 / self.limit
        self.limit = min(self.most, self.limit + step)

    def shrink(self, sent_at: float, now: float) -> None:
        """Count a refusal of a request sent at `sent_at`."""
        if sent_at > self._shrunk_at:
            self.limit, self._shrunk_at = max(1.0, self.limit / 2), now

    def pause(self, until: float) -> None:
        """Send nothing until then."""
        self.paused_until = max(self.paused_until, until)


class Connection:
    """The connections to one server. Opened on the event loop that uses it."""

    def __init__(self, url: str, spec: HttpEngine, key: ApiKey) -> None:
        import aiohttp

        self._key, self._client = key, _open_client(url, spec, key)
        self._patience_s = spec.give_up_after_s
        self._network_errors = (aiohttp.ClientError, OSError, TimeoutError)
        self._broken_head = aiohttp.ClientResponseError  # headers that are too long, an encoding that cannot be read
        self.heard_at = 0.0
        """When the server last sent anything, by time.monotonic()."""
        self.received_at = 0.0
        """When it last sent part of a correct answer to a request of `post`."""

    async def close(self) -> None:
        await self._client.close()

    async def get(self, url: str, timeout_s: float) -> Response:
        """Send a request. Raises AttemptError if the connection breaks or the time is over, if the answer is too long, or if the
        server sends the request to another origin."""
        from aiohttp import ClientTimeout

        timeout = ClientTimeout(total=timeout_s)
        for _ in range(1 + MOST_REDIRECTIONS):
            request = self._client.get(url, timeout=timeout, allow_redirects=False)
            response = await self._exchange(request, posted=False, longest=LONGEST_LIST, longest_error=LONGEST_ERROR)
            if response.status not in REDIRECTIONS:
                return response
            target = _target(url, response)
            if _origin(target) is None or _origin(target) != _origin(url):
                raise self._sent_on(url, response)
            url = target
        raise AttemptError("failed", f"status {response.status}: more than {MOST_REDIRECTIONS} redirections of one request")

    async def post(self, url: str, body: bytes, longest: int = LONGEST_LIST) -> Response:
        """Send a request and wait for the answer without limit. Raises AttemptError if the connection breaks, if the answer
        arrives too slowly or has more than `longest` bytes, or if the server sends the request to another address."""
        request = self._client.post(url, data=body, allow_redirects=False)
        longest_error = min(longest, LONGEST_ERROR + 16 * len(body))
        response = await self._exchange(request, posted=True, longest=longest, longest_error=longest_error)
        if response.status in REDIRECTIONS:
            raise self._sent_on(url, response)
        return response

    async def _exchange(
        self, request: AbstractAsyncContextManager["aiohttp.ClientResponse"], *, posted: bool, longest: int, longest_error: int
    ) -> Response:
        clock, begun_at, received = asyncio.get_running_loop().time, 0.0, 0
        try:
            async with request as response, asyncio.timeout(None) as limit:
                right, parts = response.status == 200, list[bytes]()
                async for part in response.content.iter_any():  # an answer with log-probabilities may take minutes to arrive
                    parts.append(part)
                    received += len(part)
                    self._heard(posted and right)
                    if received > longest and right:
                        raise AttemptError("failed", f"an answer of more than {longest} bytes, which is more than was asked for")
                    if received > longest_error and not right:
                        break
                    begun_at = begun_at or (clock() if part.strip() else 0.0)
                    limit.reschedule(begun_at + self._patience_s + received / SLOWEST if begun_at else None)
                self._heard(posted and right)
                wait, location = (_header(response, name) for name in ("retry-after", "location"))
                return Response(response.status, wait, b"".join(parts), location)
        except self._network_errors as error:
            if isinstance(error, TimeoutError) and begun_at and clock() > begun_at + self._patience_s:
                words = f"an answer that arrives too slowly: {received} bytes in {clock() - begun_at:.0f} s"
                raise AttemptError("failed", words) from error
            words = self._key.hide(f"{type(error).__name__} {error}".strip())[:WORDS]
            raise AttemptError("failed" if isinstance(error, self._broken_head) else "cut", words) from error

    def _sent_on(self, url: str, response: Response) -> AttemptError:
        """The error of a server that sends a request to an address that the recipe does not name."""
        target = self._key.hide(_target(url, response))[:WORDS]
        return AttemptError(
            "failed",
            f"status {response.status}: {url} sends the request on to {target or 'nowhere'}; prompts go to the addresses of the "
            "recipe alone, so name that address in engine.base_urls if it is the right one",
        )

    def _heard(self, received: bool) -> None:
        self.heard_at = time.monotonic()
        if received:
            self.received_at = self.heard_at


def _header(response: "aiohttp.ClientResponse", name: str) -> str:
    """A header as text that can be stored: what is not UTF-8 in it is replaced."""
    return response.headers.get(name, "").encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _target(url: str, response: Response) -> str:
    """Where a redirection leads; "" if it does not say."""
    try:
        return urljoin(url, response.location) if response.location else ""
    except ValueError:
        return response.location


def _origin(url: str) -> tuple[str, str, int] | None:
    """Scheme, host and port of an address; None if it has none."""
    try:
        parts = urlsplit(url)
        port = parts.port or {"http": 80, "https": 443}[parts.scheme]
    except (ValueError, KeyError):
        return None
    if "@" in parts.netloc:  # credentials of somebody else
        return None
    return parts.scheme, (parts.hostname or "").lower(), port


def _open_client(url: str, spec: HttpEngine, key: ApiKey) -> "aiohttp.ClientSession":
    """Open a client for one server. A completion may take hours, so there is no read timeout: TCP keep-alive detects a dead
    machine."""
    import aiohttp

    options = [(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)]
    for name, value in (("TCP_KEEPIDLE", 60), ("TCP_KEEPINTVL", 15), ("TCP_KEEPCNT", 8)):
        if hasattr(socket, name):  # not on every platform
            options.append((socket.IPPROTO_TCP, getattr(socket, name), value))

    def open_socket(address: Any) -> socket.socket:
        opened = socket.socket(*address[:3])
        for option in options:
            opened.setsockopt(*option)
        opened.setblocking(False)
        return opened

    class Answer(aiohttp.ClientResponse):
        async def start(self, connection: Any) -> aiohttp.ClientResponse:
            """Read the head of the answer; interim ones before it are read without end by aiohttp."""
            protocol, interim = connection.protocol, count(1)
            read = protocol.read

            async def read_head() -> Any:
                if next(interim) > MOST_INTERIM:
                    raise AttemptError("failed", f"more than {MOST_INTERIM} interim answers (status 1xx)")
                return await read()

            protocol.read = read_head
            try:
                return await super().start(connection)
            finally:
                del protocol.read

    parts = urlsplit(url)
    host = parts.hostname or ""
    proxy = (
        None if trust.is_loopback(host) or urllib.request.proxy_bypass(host) else urllib.request.getproxies().get(parts.scheme)
    )
    if key.value and parts.scheme == "http" and not trust.is_loopback(host):
        log.warning("%s: the key of %s is sent unencrypted; use https", url, key.variable)
    return aiohttp.ClientSession(
        # Servers (uvicorn) close an idle connection after 5 s.
        connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=4, socket_factory=open_socket),
        headers={"Content-Type": "application/json"} | key.headers,
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=spec.connect_timeout_s, sock_read=None),
        proxy=proxy,
        response_class=Answer,
    )
