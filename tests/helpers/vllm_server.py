"""Starts vLLM's server of a model on 127.0.0.1, and ends it."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from helpers import known
from helpers.http_sampler import free_port
from helpers.warm_vllm import server_process
from thresher.samplers.orphans import descendants, kill


@contextmanager
def serving(model: str, log: Path, *arguments: str) -> Iterator[str]:
    """The base url of a server of the model, named `small`, while the block runs."""
    port = free_port()
    told = ["--model", model, "--served-model-name", "small", "--host", "127.0.0.1", "--port", str(port)]
    told += ["--dtype", "float32", "--enforce-eager", "--max-model-len", "512"]
    process = server_process([*told, *arguments], log)
    try:
        for _ in range(3000):
            try:
                if httpx.get(f"http://127.0.0.1:{port}/health", trust_env=False).status_code == 200:
                    break
            except httpx.HTTPError:
                pass
            assert process.is_alive(), log.read_text()
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        children = descendants(known(process.pid))
        process.kill()
        process.join()
        kill(children)
