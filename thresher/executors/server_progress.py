"""Whether a server of vLLM still makes tokens: a fleet replaces one that answers its health check and makes none."""

import http.client
import os
import time
from urllib.parse import urlsplit

import orjson

from thresher.samplers.http.connection import LONGEST_LIST
from thresher.samplers.http.counters import read_counters
from thresher.samplers.http.dialects import VLLM

ANSWER_S = 30.0
"""Seconds that a server may take to show its counters."""


class ServerProgress:
    """Watches the counters of a server. A fleet does not know what its clients ask for, so a server whose counters stand still
    for `silent_s` seconds is asked for a token: an idle one makes it at once, one that hangs does not."""

    def __init__(self, root: str, model: str, silent_s: float) -> None:
        self._root, self._model, self._silent_s = root, model, silent_s
        self._counters: tuple[float, ...] | None = None
        self._moved_at = time.monotonic()

    def stalled(self) -> bool:
        """Return whether the server makes no token. Takes up to `silent_s` seconds where it makes none. A server that publishes
        no counters, or refuses the question, is not stalled."""
        _, page = _exchange(f"{self._root}/metrics", None, ANSWER_S)
        counters = None if page is None else read_counters(page, VLLM.work_counters)
        if counters != self._counters or counters is None:
            self._counters, self._moved_at = counters, time.monotonic()
        if time.monotonic() - self._moved_at < self._silent_s:
            return False
        question = {"model": self._model, "prompt": "a", "n": 1, "temperature": 0, "max_tokens": 1}
        late, _ = _exchange(f"{self._root}/v1/completions", orjson.dumps(question), self._silent_s)
        self._moved_at = time.monotonic()
        return late


def _exchange(url: str, body: bytes | None, seconds: float) -> tuple[bool, bytes | None]:
    """Return whether the answer took longer than this time, and the answer, None where there is none."""
    direct = http.client.HTTPConnection(urlsplit(url).netloc, timeout=seconds)
    headers = {"Content-Type": "application/json"}
    if key := os.environ.get("VLLM_API_KEY"):  # a server of this machine asks for the same
        headers["Authorization"] = f"Bearer {key}"
    try:
        direct.request("GET" if body is None else "POST", urlsplit(url).path, body, headers)
        answer = direct.getresponse()
        content = answer.read(LONGEST_LIST)
        return False, content if answer.status == 200 else None
    except TimeoutError:
        return True, None
    except (OSError, http.client.HTTPException):  # the health check tells
        return False, None
    finally:
        direct.close()
