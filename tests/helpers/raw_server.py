"""A server on 127.0.0.1 that answers with any bytes, for as long as the client reads them."""

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from typing import Any, Self

Raw = Iterator[bytes] | bytes
PAUSE = b""
"""In an answer: a wait of 10 ms."""


class RawServer:
    """A server that runs inside `with`. `answer(path, body)` is called for each request: with the JSON of a POST, None for a GET.
    It returns the whole answer, head included, after which the connection is closed."""

    def __init__(self, answer: Callable[[str, Any], Raw]) -> None:
        self._answer = answer
        self.requests: list[tuple[str, Any]] = []
        self._ready, self.port = threading.Event(), 0
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def __enter__(self) -> Self:
        self._thread.start()
        self._ready.wait()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        server = await asyncio.start_server(self._connection, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._stop.wait()
        server.close()
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            length = head.partition("content-length: ")[2].partition("\r\n")[0]
            body = await reader.readexactly(int(length or 0))
            request = (head.split()[1], json.loads(body) if body else None)
            self.requests.append(request)
            answer = self._answer(*request)
            for part in [answer] if isinstance(answer, bytes) else answer:
                if part == PAUSE:
                    await asyncio.sleep(0.01)
                writer.write(part)
                await writer.drain()
        except (asyncio.IncompleteReadError, asyncio.CancelledError, ConnectionError):
            pass
        finally:
            writer.transport.abort() if writer.transport.is_closing() else writer.close()


def whole(body: bytes, status: int = 200, **headers: str) -> bytes:
    """An answer with a length; `_` in the name of a header stands for `-`."""
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    return f"HTTP/1.1 {status} X\r\ncontent-length: {len(body)}\r\nconnection: close\r\n{lines}\r\n".encode() + body
