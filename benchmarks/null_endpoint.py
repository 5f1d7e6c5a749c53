"""An OpenAI-compatible server on 127.0.0.1 without a model: it answers every request at once.

    python benchmarks/null_endpoint.py             # prints its port and serves until it is killed
    python benchmarks/null_endpoint.py --measure   # what the server itself can do, with a raw client beside it

Answers are put together from parts encoded once, so a request costs the parsing of its body and one join. Each completion has 20
tokens and is one of eight to a sum such as "what is 17 plus 25?": five are right and worded differently, one is wrong, one gives
no answer, one is cut off where max_tokens is 20. Which of them comes is a function of the prompt, the index and the seed; without
a seed also of how often the server was asked, so that sixteen requests of one prompt get different answers too.

Log-probabilities are those of an honest sampler: at each position four tokens have the probabilities 0.5, 0.25, 0.15 and 0.05 and
the rest 0.05 together, and of 20 tokens drawn 10, 5, 3, 1 and 1 are of these.

Not checked: fields it does not know, keys, and the length of a prompt. It takes no chunked bodies and streams nothing.
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
VARIANTS = len(RIGHT) + 3  # and wrong, without an answer, cut off
_ORDER = random.Random(0).choices(range(VARIANTS), k=1024)
_RANKS = (0,) * 10 + (1,) * 5 + (2,) * 3 + (3, 20)
_P = (0.5, 0.25, 0.15, 0.05) + (0.0006,) * 16 + (0.0004,)
_PROMPT_IDS = list(range(100, 140))
_SUM = re.compile(r"what is (\d{1,4}) plus (\d{1,4})")
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_HEAD = b"HTTP/1.1 %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"


def _module(name: str, otherwise: Any) -> Any:
    """A faster module where it is installed."""
    return importlib.import_module(name) if importlib.util.find_spec(name) else otherwise


_loads: Callable[[bytes], Any] = _module("orjson", json).loads


class Form(NamedTuple):
    """What a request asks an answer to look like."""

    chat: bool
    listed: int
    """Likeliest tokens at each position; -1 without log-probabilities."""
    ids: bool
    names: bool
    """Name tokens by their ids."""
    length: int
    """max_tokens."""


def _words(total: int, variant: int) -> tuple[list[str], bool]:
    """The tokens of an answer as text, and whether it came to its end, which is its last token then."""
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
    """A choice of an answer from after its index on, encoded."""
    words, ended = _words(total, variant)
    ended = ended and form.length >= TOKENS
    words = words[: form.length]
    if not ended and form.length > TOKENS:  # an answer is cut where it was to be cut, or not at all
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
_asked = count()
_served = {"requests": 0, "completions": 0}


def answer(path: bytes, body: bytes) -> tuple[bytes, bytes]:
    """Status line and body of the answer to one POST."""
    chat = path.endswith(b"/chat/completions")
    if not chat and not path.endswith(b"/completions"):
        return b"404 Not Found", b'{"error":{"message":"no such path"}}'
    try:
        asked = _loads(body)
        prompt = asked["messages"][-1]["content"] if chat else asked["prompt"]
        n = asked.get("n") or 1
        found = _SUM.search(prompt)
    except (ValueError, KeyError, TypeError, IndexError) as error:
        return b"400 Bad Request", json.dumps({"error": {"message": f"not a request: {type(error).__name__}: {error}"}}).encode()
    if not 1 <= n <= len(_INDEX):
        return b"400 Bad Request", b'{"error":{"message":"n must be from 1 to 1024"}}'
    wanted = asked.get("logprobs")
    listed = (asked.get("top_logprobs") or 0 if wanted else -1) if chat else (-1 if wanted is None else int(wanted))
    length = asked.get("max_completion_tokens") or asked.get("max_tokens") or CONTEXT
    names = bool(asked.get("return_tokens_as_token_ids"))
    form = Form(chat, min(listed, 20), bool(asked.get("return_token_ids")), names, min(length, TOKENS + 1))
    key = zlib.crc32(prompt.encode())
    total = int(found[1]) + int(found[2]) if found else key % 100
    if asked.get("temperature") == 0:
        variants = [0] * n
    else:
        seed = asked.get("seed")
        first = key + (31 * next(_asked) if seed is None else seed)
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


def told(path: bytes) -> tuple[bytes, bytes]:
    """Status line and body of the answer to one GET. /stats is the benchmark's own: requests, completions and CPU seconds."""
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
    """One client: requests one after another, whole or in pieces."""

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
            found = _LENGTH.search(self._read, 0, end + 2)
            whole = end + 4 + (int(found[1]) if found else 0)
            if len(self._read) < whole:
                break
            status, body = told(path) if method == b"GET" else answer(path, self._read[end + 4 : whole])
            out.append(_HEAD % (status, len(body)))
            out.append(body)
            self._read = self._read[whole:]
        if out:
            self._transport.write(b"".join(out))


async def serve() -> None:
    """Serve on a free port, which is printed."""
    server = await asyncio.get_running_loop().create_server(Connection, "127.0.0.1", 0, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


class _Asker(asyncio.Protocol):
    """A client of `measure`: the same request again and again, the answer counted and thrown away."""

    def __init__(self, request: bytes, until: float) -> None:
        self.request, self.until, self.left, self.answers = request, until, 0, 0
        self.transport: Any = None
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.transport.write(self.request)

    def data_received(self, data: bytes) -> None:
        if not self.left:  # the head comes in one piece with the first of the body
            found = _LENGTH.search(data)
            assert found is not None, data[:200]
            self.left = data.index(b"\r\n\r\n") + 4 + int(found[1])
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
    asked = {"model": MODEL, "messages": [{"role": "user", "content": question}], "max_tokens": TOKENS, **fields}
    body = json.dumps(asked).encode()
    request = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    loop, until = asyncio.get_running_loop(), time.perf_counter() + seconds
    made = [await loop.create_connection(lambda: _Asker(request, until), "127.0.0.1", port) for _ in range(connections)]
    await asyncio.gather(*(asker.over for _, asker in made))
    return sum(asker.answers for _, asker in made)


def measure(seconds: float, connections: int) -> None:
    """Print what the server does a second, and how much CPU time it takes to do it."""
    import urllib.request

    with subprocess.Popen([sys.executable, __file__], stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            port = int(server.stdout.readline())

            def stats() -> dict[str, Any]:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/stats") as response:
                    found: dict[str, Any] = json.load(response)
                    return found

            ours = {"return_token_ids": True, "return_tokens_as_token_ids": True, "logprobs": True}
            kinds = {
                "n=1 text": {"n": 1},
                "n=16 text": {"n": 16},
                "n=16 with logprobs and ids": {"n": 16, **ours},
                "n=16 with top 20": {"n": 16, "top_logprobs": 20, **ours},
            }
            for name, fields in kinds.items():
                _run(_ask(port, fields, 0.2, connections))  # encodes the parts
                before, began = stats(), time.perf_counter()
                answers = _run(_ask(port, fields, seconds, connections))
                took, after = time.perf_counter() - began, stats()
                cpu, n = after["cpu_s"] - before["cpu_s"], fields["n"]
                print(
                    f"{name}: {answers / took:,.0f} requests/s, {n * answers / took:,.0f} completions/s; the server takes "
                    f"{1e6 * cpu / answers:.0f} us of CPU a request and gives {n * answers / cpu:,.0f} completions per CPU-second"
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
