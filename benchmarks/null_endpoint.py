"""An OpenAI-compatible server on 127.0.0.1 without a model: it answers every request immediately.

    python benchmarks/null_endpoint.py             # prints its port and serves until it is killed
    python benchmarks/null_endpoint.py --measure   # measures the server itself, with a raw client

Answers are joined from parts that are encoded once, so a request costs parsing its body and one join. Each completion has 20
tokens and is one of eight answers to a sum such as "what is 17 plus 25?": five are right in different words, one is wrong, one
has no answer, one is cut off at max_tokens 20. Prompt, index and seed decide which; without a seed, the number of earlier
requests as well, so that sixteen requests with one prompt get different answers, too.

Log-probabilities are those of an honest sampler: at each position four tokens have the probabilities 0.5, 0.25, 0.15 and 0.05,
and the rest 0.05 together; of 20 drawn tokens 10, 5, 3, 1 and 1 are of these.

It does not check unknown fields, keys, or the length of a prompt. It accepts no chunked bodies and does not stream.
"""

import argparse
import asyncio
import importlib
import importlib.util
import json
import math
import random
import re
import resource
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Coroutine
from functools import cache
from itertools import count
from typing import Any, NamedTuple

MODEL, TOKENS, CONTEXT = "null-engine", 20, 4096
RIGHT = (
    "Counting on from the first number by the second one brings us exactly to this : ####",
    "Put the tens together , then the ones , carry what is over and get ####",
    "First I round one of them up , add , and take the rest off again : ####",
    "The sum does not depend on the order , so I begin with the larger : ####",
    "Both numbers are small enough to be added in the head , which gives this ####",
)
VARIANTS = len(RIGHT) + 3  # Also wrong, without an answer, and cut off.
_ORDER = random.Random(0).choices(range(VARIANTS), k=1024)
_RANKS = (0,) * 10 + (1,) * 5 + (2,) * 3 + (3, 20)
_P = (0.5, 0.25, 0.15, 0.05) + (0.0006,) * 16 + (0.0004,)
_PROMPT_IDS = list(range(100, 140))
_SUM = re.compile(r"what is (\d{1,4}) plus (\d{1,4})")
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_HEAD = b"HTTP/1.1 %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"


def _module(name: str, fallback: Any) -> Any:
    """Import a faster module where it is installed."""
    return importlib.import_module(name) if importlib.util.find_spec(name) else fallback


_loads: Callable[[bytes], Any] = _module("orjson", json).loads


class Form(NamedTuple):
    """The form of the answer that a request asks for."""

    chat: bool
    listed: int
    """Likeliest tokens at each position; -1 without log-probabilities."""
    ids: bool
    names: bool
    """Whether tokens are named by their ids."""
    length: int
    """max_tokens."""


def _words(total: int, variant: int) -> tuple[list[str], bool]:
    """The tokens of an answer as text, and whether it is finished; its last token is then the end token."""
    if variant < len(RIGHT):
        words = [*RIGHT[variant].split(), str(total)]
    elif variant == len(RIGHT):
        words = [*RIGHT[0].split(), str(total + 1)]
    elif variant == len(RIGHT) + 1:
        words = ["I", "do", "not", "know", "how", "to", "add", "numbers", "that", "I", "have", "never", "seen", "before", "."]
    else:
        return ["Let", "us", "think", "about", "it", "slowly"] + ["and", "then"] * 7, False
    return words + [""] * (TOKENS - len(words)), True


@cache
def _listed(position: int, form: Form) -> bytes:
    """The likeliest tokens at a position, encoded."""
    named = [f"token_id:{_token(position, rank)}" if form.names else f" word{position}_{rank}" for rank in range(form.listed)]
    values = [math.log(p) for p in _P[: form.listed]]
    if not form.chat:
        return json.dumps(dict(zip(named, values, strict=True))).encode()
    return json.dumps(
        [{"token": n, "logprob": v, "bytes": list(n.encode())} for n, v in zip(named, values, strict=True)], separators=(",", ":")
    ).encode()


def _token(position: int, rank: int) -> int:
    return 1000 + 32 * position + rank


@cache
def _choice(total: int, variant: int, form: Form) -> bytes:
    """A choice of an answer without its index, encoded."""
    words, ended = _words(total, variant)
    ended = ended and form.length >= TOKENS
    words = words[: form.length]
    if not ended and form.length > TOKENS:  # A variant that would be cut is finished if there is room.
        ended = True
    ranks = [_RANKS[(7 * position + 3 * variant + total) % TOKENS] for position in range(len(words))]
    text = " ".join(word for word in words if word)
    choice: dict[str, Any] = {"message": {"role": "assistant", "content": text}} if form.chat else {"text": text}
    choice |= {"finish_reason": "stop" if ended else "length", "stop_reason": None}
    if form.ids:
        choice["token_ids"] = [_token(position, rank) for position, rank in enumerate(ranks)]
    encoded = json.dumps(choice, separators=(",", ":"))[1:-1].encode()
    if form.listed < 0:
        return encoded + b',"logprobs":null}'
    names = [f"token_id:{_token(i, rank)}" if form.names else f" {words[i]}" for i, rank in enumerate(ranks)]
    values = [math.log(_P[rank]) for rank in ranks]
    tops = [_listed(position, form) for position in range(len(words))]
    if not form.chat:
        parts = json.dumps({"tokens": names, "token_logprobs": values, "text_offset": [0] * len(names)})[:-1].encode()
        return encoded + b',"logprobs":' + parts + b',"top_logprobs":[' + b",".join(tops) + b"]}}"
    entries = [
        json.dumps({"token": name, "logprob": value, "bytes": list(name.encode())}, separators=(",", ":"))[:-1].encode()
        + b',"top_logprobs":'
        + top
        + b"}"
        for name, value, top in zip(names, values, tops, strict=True)
    ]
    return encoded + b',"logprobs":{"content":[' + b",".join(entries) + b"]}}"


_INDEX = [b'{"index":%d,' % index for index in range(1024)]
_requests = count()
_served = {"requests": 0, "completions": 0}


def answer(path: bytes, body: bytes) -> tuple[bytes, bytes]:
    """Return status line and body of the answer to a POST request."""
    chat = path.endswith(b"/chat/completions")
    if not chat and not path.endswith(b"/completions"):
        return b"404 Not Found", b'{"error":{"message":"no such path"}}'
    try:
        request = _loads(body)
        prompt = request["messages"][-1]["content"] if chat else request["prompt"]
        n = request.get("n") or 1
        numbers = _SUM.search(prompt)
    except (ValueError, KeyError, TypeError, IndexError) as error:
        return b"400 Bad Request", json.dumps({"error": {"message": f"not a request: {type(error).__name__}: {error}"}}).encode()
    if not 1 <= n <= len(_INDEX):
        return b"400 Bad Request", b'{"error":{"message":"n must be from 1 to 1024"}}'
    wanted = request.get("logprobs")
    listed = (request.get("top_logprobs") or 0 if wanted else -1) if chat else (-1 if wanted is None else int(wanted))
    length = request.get("max_completion_tokens") or request.get("max_tokens") or CONTEXT
    names = bool(request.get("return_tokens_as_token_ids"))
    form = Form(chat, min(listed, 20), bool(request.get("return_token_ids")), names, min(length, TOKENS + 1))
    key = zlib.crc32(prompt.encode())
    total = int(numbers[1]) + int(numbers[2]) if numbers else key % 100
    if request.get("temperature") == 0:
        variants = [0] * n
    else:
        seed = request.get("seed")
        first = key + (31 * next(_requests) if seed is None else seed)
        variants = [_ORDER[(first + index) % 1024] for index in range(n)]
    choices = b",".join([_INDEX[index] + _choice(total, variant, form) for index, variant in enumerate(variants)])
    _served["requests"] += 1
    _served["completions"] += n
    tokens = n * min(length, TOKENS)
    head = b'{"id":"cmpl-%d","object":"%s","created":1700000000,"model":"null-engine","choices":[' % (
        _served["requests"],
        b"chat.completion" if chat else b"text_completion",
    )
    usage = b'],"usage":{"prompt_tokens":%d,"completion_tokens":%d,"total_tokens":%d}' % (
        len(_PROMPT_IDS),
        tokens,
        len(_PROMPT_IDS) + tokens,
    )
    ids = b',"prompt_token_ids":' + json.dumps(_PROMPT_IDS).encode() if form.ids else b""
    return b"200 OK", b"".join((head, choices, usage, ids, b"}"))


def fetched(path: bytes) -> tuple[bytes, bytes]:
    """Return status line and body of the answer to a GET request. /stats has requests, completions and CPU seconds."""
    if path.endswith(b"/models"):
        card = {
            "id": MODEL,
            "object": "model",
            "created": 1700000000,
            "owned_by": "vllm",
            "root": MODEL,
            "max_model_len": CONTEXT,
        }
        return b"200 OK", json.dumps({"object": "list", "data": [card]}).encode()
    if path == b"/version":
        return b"200 OK", b'{"version":"null"}'
    if path == b"/stats":
        used = resource.getrusage(resource.RUSAGE_SELF)
        return b"200 OK", json.dumps(_served | {"cpu_s": used.ru_utime + used.ru_stime}).encode()
    return (b"200 OK", b"{}") if path == b"/health" else (b"404 Not Found", b'{"error":{"message":"no such path"}}')


class Connection(asyncio.Protocol):
    """One client, whose requests arrive one after another, whole or in pieces."""

    def __init__(self) -> None:
        self._read = b""
        self._transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._read = self._read + data if self._read else data
        out = []
        while (end := self._read.find(b"\r\n\r\n")) >= 0:
            method, path, _ = self._read.split(b" ", 2)
            length = _LENGTH.search(self._read, 0, end + 2)
            size = end + 4 + (int(length[1]) if length else 0)
            if len(self._read) < size:
                break
            status, body = fetched(path) if method == b"GET" else answer(path, self._read[end + 4 : size])
            out.append(_HEAD % (status, len(body)))
            out.append(body)
            self._read = self._read[size:]
        if out:
            self._transport.write(b"".join(out))


async def serve() -> None:
    """Print a free port, and serve on it."""
    server = await asyncio.get_running_loop().create_server(Connection, "127.0.0.1", 0, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


class _Asker(asyncio.Protocol):
    """A client of `measure`, which repeats a request and counts the answers."""

    def __init__(self, request: bytes, until: float) -> None:
        self.request, self.until, self.left, self.answers = request, until, 0, 0
        self.transport: Any = None
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.transport.write(self.request)

    def data_received(self, data: bytes) -> None:
        if not self.left:  # The head arrives in one piece with the start of the body.
            length = _LENGTH.search(data)
            assert length is not None, data[:200]
            self.left = data.index(b"\r\n\r\n") + 4 + int(length[1])
        self.left -= len(data)
        if self.left:
            return
        self.answers += 1
        if time.perf_counter() < self.until:
            self.transport.write(self.request)
        elif not self.over.done():
            self.transport.close()
            self.over.set_result(None)


async def _ask(port: int, fields: dict[str, Any], seconds: float, connections: int) -> int:
    question = "Question 1: what is 17 plus 25? Say in one short sentence how you get there, then give the sum after ####."
    request_fields = {"model": MODEL, "messages": [{"role": "user", "content": question}], "max_tokens": TOKENS, **fields}
    body = json.dumps(request_fields).encode()
    request = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    loop, until = asyncio.get_running_loop(), time.perf_counter() + seconds
    clients = [await loop.create_connection(lambda: _Asker(request, until), "127.0.0.1", port) for _ in range(connections)]
    await asyncio.gather(*(asker.over for _, asker in clients))
    return sum(asker.answers for _, asker in clients)


def measure(seconds: float, connections: int) -> None:
    """Print the server's requests and completions per second, and its CPU time per request."""
    import urllib.request

    with subprocess.Popen([sys.executable, __file__], stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            port = int(server.stdout.readline())

            def stats() -> dict[str, Any]:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/stats") as response:
                    counts: dict[str, Any] = json.load(response)
                    return counts

            ours = {"return_token_ids": True, "return_tokens_as_token_ids": True, "logprobs": True}
            kinds = {
                "n=1 text": {"n": 1},
                "n=16 text": {"n": 16},
                "n=16 with logprobs and ids": {"n": 16, **ours},
                "n=16 with top 20": {"n": 16, "top_logprobs": 20, **ours},
            }
            for name, fields in kinds.items():
                _run(_ask(port, fields, 0.2, connections))  # Encodes the parts.
                before, start = stats(), time.perf_counter()
                answers = _run(_ask(port, fields, seconds, connections))
                seconds_taken, after = time.perf_counter() - start, stats()
                cpu, n = after["cpu_s"] - before["cpu_s"], fields["n"]
                print(
                    f"{name}: {answers / seconds_taken:,.0f} requests/s, {n * answers / seconds_taken:,.0f} completions/s; the "
                    f"server uses {1e6 * cpu / answers:.0f} us of CPU per request: {n * answers / cpu:,.0f} per CPU second"
                )
        finally:
            server.terminate()


def _run(what: Coroutine[Any, Any, Any]) -> Any:
    uvloop = _module("uvloop", None)
    return asyncio.run(what) if uvloop is None else uvloop.run(what)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--measure", action="store_true", help="measure the server instead of serving")
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--connections", type=int, default=32)
    options = parser.parse_args()
    if options.measure:
        measure(options.seconds, options.connections)
    else:
        _run(serve())


if __name__ == "__main__":
    main()
