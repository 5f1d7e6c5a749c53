"""An OpenAI-compatible server on 127.0.0.1 that samples from a known distribution and fails on request.

`misbehave(number, body)` is called for each request for completions; the first has number 0. It returns None for a correct
answer, a status, (status, headers, message), or (status, headers, body) with a body that is not text: JSON or bytes. `cut`
closes the connection in the middle of the answer, `drop` before it, and `half` sends half of the JSON.

With `counts` it publishes vLLM's counters, and makes the tokens of an answer in 20 `steps` during `delay_s`; while `stalled`, it
makes none and answers everything else. `frozen` counters stand still although it answers.
"""

import asyncio
import json
import random
import threading
from collections.abc import Callable, Iterable
from typing import Any, Literal, Protocol, Self

import numpy as np

CHAIN = np.random.default_rng(7).dirichlet(np.full(30, 0.3), size=30)
"""Probability of each of 30 tokens after each of them. Token 0 ends a completion."""
ORDER = np.argsort(-CHAIN, axis=1, kind="stable").tolist()
LOGPROBS = np.log(CHAIN).tolist()

METRICS = """# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{{engine="0",model_name="small"}} {running}.0
# HELP vllm:kv_cache_usage_perc KV-cache usage. 1 means 100 percent usage.
# TYPE vllm:kv_cache_usage_perc gauge
vllm:kv_cache_usage_perc{{engine="0",model_name="small"}} 0.25
# HELP vllm:prompt_tokens_total Number of prefill tokens processed.
# TYPE vllm:prompt_tokens_total counter
vllm:prompt_tokens_total{{engine="0",model_name="small"}} 3.0
# HELP vllm:generation_tokens_total Number of generation tokens processed.
# TYPE vllm:generation_tokens_total counter
vllm:generation_tokens_total{{engine="0",model_name="small"}} {made}.0
"""
"""Some of vLLM's metrics, as it writes them."""


class _FromServer(Protocol):
    @property
    def source(self) -> str: ...


class FakeOpenAI:
    """A server that runs inside `with`. `only` truncates the distribution to the likeliest tokens, as top-k does. `render` makes
    the prompt of a request, one token for each character; a ValueError of it refuses the request. Without it the server answers
    no questions about prompts. `card` has further fields of the models it lists, `weight_version` what it says of its
    weights.

    `listing` is what it answers at /models instead: JSON, or a status. `told` has the JSON of further paths from its root,
    `shape(answer, body)` changes a correct answer to a request, and `prefix` is the path of its API."""

    def __init__(
        self,
        *,
        models: tuple[str, ...] = ("small",),
        owned_by: str = "vllm",
        misbehave: Callable[[int, dict[str, Any]], Any] | None = None,
        key: str | None = None,
        delay_s: float = 0.0,
        only: int | None = None,
        choices: Callable[[int], int] = lambda n: n,
        context: int = 1000,
        render: Callable[[dict[str, Any]], str] | None = None,
        port: int = 0,
        counts: Literal["tokens", "frozen"] | None = None,
        card: dict[str, Any] | None = None,
        version: str = "0.32.0",
        weight_version: str | None = None,
        listing: Any = None,
        told: dict[str, Any] | None = None,
        shape: Callable[[dict[str, Any], dict[str, Any]], Any] | None = None,
        prefix: str = "/v1",
    ) -> None:
        self.models, self.owned_by, self.key, self.delay_s, self.context = models, owned_by, key, delay_s, context
        self.choices, self.render = choices, render
        self.card, self.version, self.weight_version = card or {}, version, weight_version
        self.listing, self.told, self.prefix = listing, told or {}, prefix
        self.shape = shape or (lambda answer, body: answer)
        self.misbehave = misbehave or (lambda number, body: None)
        self.bodies: list[dict[str, Any]] = []
        self.in_progress = self.most_in_progress = self.lists_of_models = 0
        self.counts, self.stalled, self.tokens_made, self.steps = counts, False, 0, 20
        self._random = random.Random(3)
        weights = CHAIN.copy()
        if only is not None:
            np.put_along_axis(weights, np.argsort(-CHAIN, axis=1, kind="stable")[:, only:], 0.0, axis=1)
        self._weights = np.cumsum(weights, axis=1).tolist()
        self.port, self._ready = port, threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()))

    def __enter__(self) -> Self:
        self._thread.start()
        self._ready.wait()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}{self.prefix}"

    def drew_any(self, drawn: Iterable[_FromServer]) -> bool:
        """Whether any of these groups was drawn by this server."""
        return any(group.source == f"127.0.0.1:{self.port}" for group in drawn)

    def hang(self) -> threading.Event:
        """Stop working with all connections open, until the returned event is set."""
        release = threading.Event()
        self._loop.call_soon_threadsafe(release.wait)
        return release

    def stop(self) -> None:
        if self._thread.is_alive():
            self.stalled = False
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join()

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        self._writers: set[asyncio.StreamWriter] = set()
        server = await asyncio.start_server(self._connection, "127.0.0.1", self.port)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._stop.wait()
        for listening in server.sockets:  # Server.close() would leave the sockets of connections being accepted
            self._loop.remove_reader(listening.fileno())
        await asyncio.sleep(0.01)
        server.close()
        for _ in range(200):
            for writer in list(self._writers):
                writer.transport.abort()
            await asyncio.sleep(0.005)
            if asyncio.all_tasks() == {asyncio.current_task()}:
                break

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                line, *fields = head.strip().split("\r\n")
                headers = {name.lower(): value for name, _, value in (field.partition(": ") for field in fields)}
                content = await reader.readexactly(int(headers.get("content-length", 0)))
                status, more, answer, fault = await self._answer(line.split()[1], headers, content)
                if fault == "drop":
                    break
                text = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
                text = text[: len(text) // 2] if fault == "half" else text
                extra = "".join(f"{name}: {value}\r\n" for name, value in more.items())
                writer.write(f"HTTP/1.1 {status} X\r\ncontent-length: {len(text)}\r\n{extra}\r\n".encode())
                writer.write(text[: len(text) // 2] if fault == "cut" else text)
                await writer.drain()
                if fault == "cut":
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self._writers.discard(writer)
            writer.transport.abort()

    async def _answer(self, path: str, headers: dict[str, str], content: bytes) -> tuple[int, dict[str, str], Any, str]:
        """Status, headers, body, and the fault with which to send them."""
        if self.key and headers.get("authorization") != f"Bearer {self.key}":
            return 401, {}, {"error": {"message": f"wrong key {headers.get('authorization')}"}}, ""
        if path in self.told:
            return 200, {}, self.told[path], ""
        if path == f"{self.prefix}/models" and self.listing is not None:
            self.lists_of_models += 1
            missing = isinstance(self.listing, int)
            return (self.listing, {}, {"detail": "Not Found"}, "") if missing else (200, {}, self.listing, "")
        if path == "/version":
            return 200, {}, {"version": self.version}, ""
        if path == "/weight_info" and self.weight_version is not None:
            return 200, {}, {"weight_version": self.weight_version}, ""
        if path == "/v1/models":
            self.lists_of_models += 1
            fields = {"owned_by": self.owned_by, "max_model_len": self.context, **self.card}
            cards = [{"id": model, **fields} for model in self.models]
            return 200, {}, {"data": cards}, ""
        if path == "/metrics" and self.counts is not None:
            made = self.tokens_made if self.counts == "tokens" else 7
            return 200, {}, METRICS.format(made=made, running=self.in_progress).encode(), ""
        if self.render is not None and path in {"/tokenize", "/detokenize"}:
            return self._tokenised(path, json.loads(content), self.render)
        if not path.endswith("/completions"):
            return 404, {}, {"detail": "Not Found"}, ""
        body = json.loads(content)
        self.bodies.append(body)
        self.in_progress += 1
        self.most_in_progress = max(self.most_in_progress, self.in_progress)
        try:
            await self._generate()
        finally:
            self.in_progress -= 1
        fault = self.misbehave(len(self.bodies) - 1, body)
        if isinstance(fault, int):
            fault = (fault, {}, "no")
        if isinstance(fault, tuple):
            return fault[0], fault[1], {"error": {"message": fault[2]}} if isinstance(fault[2], str) else fault[2], ""
        return 200, {}, self.shape(self.complete(body, chat="messages" in body), body), fault or ""

    async def _generate(self) -> None:
        """Take the time of a completion, counting tokens."""
        for _ in range(self.steps):
            await asyncio.sleep(self.delay_s / self.steps)
            while self.stalled:
                await asyncio.sleep(0.01)
            self.tokens_made += self.delay_s > 0

    def _tokenised(
        self, path: str, body: dict[str, Any], render: Callable[[dict[str, Any]], str]
    ) -> tuple[int, dict[str, str], Any, str]:
        if path == "/detokenize":
            return 200, {}, {"prompt": "".join(map(chr, body["tokens"]))}, ""
        try:
            tokens = [ord(character) for character in render(body)]
        except ValueError as error:
            return 400, {}, {"error": {"message": str(error)}}, ""
        return 200, {}, {"count": len(tokens), "max_model_len": self.context, "tokens": tokens}, ""

    def complete(self, body: dict[str, Any], *, chat: bool) -> dict[str, Any]:
        """The body of a correct answer."""
        return {
            "choices": [self._choice(body, index, chat) for index in range(self.choices(body.get("n", 1)))],
            "prompt_token_ids": [1, 2, 3],
        }

    def _choice(self, body: dict[str, Any], index: int, chat: bool) -> dict[str, Any]:
        """A choice as vLLM writes it: the drawn token is listed first, beside the likeliest or instead of the last of them."""
        tokens: list[int] = []
        entries: list[list[tuple[str, float]]] = []
        named = body.get("return_tokens_as_token_ids")
        k = (body.get("top_logprobs") if chat else body.get("logprobs")) or 0
        while len(tokens) < (body.get("max_tokens") or body["max_completion_tokens"]) and tokens[-1:] != [0]:
            before = tokens[-1] if tokens else 1
            [token] = self._random.choices(range(len(CHAIN)), cum_weights=self._weights[before])
            if body.get("temperature") == 0:
                token = ORDER[before][0]
            tokens.append(token)
            listed = [token, *(other for other in ORDER[before][:k] if other != token)]
            entries.append([(f"token_id:{t}" if named else f"t{t}", LOGPROBS[before][t]) for t in listed])
        self.tokens_made += len(tokens)
        choice: dict[str, Any] = {"index": index, "finish_reason": "stop" if tokens[-1] == 0 else "length"}
        text = " ".join(map(str, tokens))
        if body.get("return_token_ids"):
            choice["token_ids"] = tokens
        if chat:
            content = [
                {"token": e[0][0], "logprob": e[0][1], "top_logprobs": [{"token": t, "logprob": v} for t, v in e[:k]]}
                for e in entries
            ]
            return choice | {"message": {"content": text}, "logprobs": {"content": content} if body.get("logprobs") else None}
        logprobs = {
            "tokens": [e[0][0] for e in entries],
            "token_logprobs": [e[0][1] for e in entries],
            "top_logprobs": [dict(e) for e in entries],
        }
        return choice | {"text": text, "logprobs": logprobs if "logprobs" in body else None, "prompt_token_ids": [1, 2, 3]}
