"""HTTP requests to one server: the client, the key, network errors, how many requests it gets, and when."""

import logging
import os
import socket
import time
import urllib.request
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

from schemas.engines import HttpEngine
from thresher.credentials import hidden
from thresher.errors import EngineError
from thresher.samplers.http.addresses import is_loopback
from thresher.samplers.http.answers import Response

if TYPE_CHECKING:
    import aiohttp  # takes a while, so it is imported when a connection is opened

log = logging.getLogger(__name__)


LONGEST_LIST = 64 << 20
"""Bytes of the longest answer to a request without a limit of its own."""


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
        self._network_errors = (aiohttp.ClientError, OSError, TimeoutError)
        self.heard_at = 0.0
        """When the server last sent anything, by time.monotonic()."""
        self.received_at = 0.0
        """When it last sent part of a correct answer to a request of `post`."""

    async def close(self) -> None:
        await self._client.close()

    async def get(self, url: str, timeout_s: float) -> Response:
        """Send a request. Raises AttemptError if the connection breaks or the time is over."""
        from aiohttp import ClientTimeout

        return await self._exchange(self._client.get(url, timeout=ClientTimeout(total=timeout_s)), posted=False)

    async def post(self, url: str, body: bytes, longest: int = LONGEST_LIST) -> Response:
        """Send a request and wait for the answer without limit. Raises AttemptError if the connection breaks, or if the answer
        has more than `longest` bytes."""
        return await self._exchange(self._client.post(url, data=body), posted=True, longest=longest)

    async def _exchange(
        self, request: AbstractAsyncContextManager["aiohttp.ClientResponse"], *, posted: bool, longest: int = LONGEST_LIST
    ) -> Response:
        try:
            async with request as response:
                parts, received = [], 0
                async for part in response.content.iter_any():  # an answer with log-probabilities may take minutes to arrive
                    parts.append(part)
                    received += len(part)
                    self._heard(posted and response.status == 200)
                    if received > longest:
                        raise AttemptError("failed", f"an answer of more than {longest} bytes, which is more than was asked for")
                self._heard(posted and response.status == 200)
                return Response(response.status, response.headers.get("retry-after", ""), b"".join(parts))
        except self._network_errors as error:
            raise AttemptError("cut", self._key.hide(f"{type(error).__name__} {error}".strip())) from error

    def _heard(self, received: bool) -> None:
        self.heard_at = time.monotonic()
        if received:
            self.received_at = self.heard_at


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

    parts = urlsplit(url)
    host = parts.hostname or ""
    proxy = None if is_loopback(host) or urllib.request.proxy_bypass(host) else urllib.request.getproxies().get(parts.scheme)
    if key.value and parts.scheme == "http" and not is_loopback(host):
        log.warning("%s: the key of %s is sent unencrypted; use https", url, key.variable)
    return aiohttp.ClientSession(
        # Servers (uvicorn) close an idle connection after 5 s.
        connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=4, socket_factory=open_socket),
        headers={"Content-Type": "application/json"} | key.headers,
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=spec.connect_timeout_s, sock_read=None),
        proxy=proxy,
    )
