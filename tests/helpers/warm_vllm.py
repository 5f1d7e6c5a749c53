"""Processes that are forked from one that has imported vLLM already: an import takes 6 s of a processor, and an engine has two
processes, a server three.

vLLM on CPUs spawns its processes, each of which imports everything anew; on GPUs it forks them. Here those that this process
starts come from multiprocessing's fork server, and those that they start in turn are forked from them. Programs that tests start
(`thresher run`) still spawn theirs, as for a user.
"""

import importlib
import multiprocessing
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from multiprocessing import forkserver
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import pytest
import setproctitle

from helpers import known

ENVIRONMENT = {
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_CPU_NUM_OF_RESERVED_CPU": "0",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "TORCHDYNAMO_DISABLE": "1",
    "TORCH_LOGS": "-all",
    "TORCH_CPP_LOG_LEVEL": "ERROR",
    "TOKENIZERS_PARALLELISM": "false",
    "PYTHONWARNINGS": "ignore:resource_tracker:UserWarning,ignore::FutureWarning:vllm.triton_utils.dispatcher",
}
"""What thresher sets for an engine with `enforce_eager` and 1 GiB of cache."""
LIBRARIES = (("torch", "lib/libgomp*.so*"), ("torch", "../torch.libs/libgomp*.so*"), ("vllm", "libs/libtcmalloc_minimal*.so*"))
"""vLLM preloads these in the processes that it spawns; without the first, there would be two OpenMPs in a process."""
SERVER = "vllm.entrypoints.launchers.api_server.entry"
PRELOADED = [
    SERVER,
    "vllm.v1.engine.core",
    "vllm.v1.executor.multiproc_executor",
    "vllm.v1.worker.cpu_worker",
    "vllm.model_executor.models.llama",
    "transformers.models.llama.modeling_llama",
]
STARTING = [
    "vllm.utils.system_utils",
    "vllm.v1.engine.utils",
    "vllm.v1.engine.coordinator",
    "vllm.v1.executor.multiproc_executor",
]
"""The modules of vLLM that start processes, each by `get_mp_context`."""


class WarmProcess(ForkServerProcess):
    """A process with the environment and the blocked signals of the thread that starts it, as a spawned one has."""

    def start(self) -> None:
        self.environment, self.blocked = dict(os.environ), signal.pthread_sigmask(signal.SIG_BLOCK, [])
        super().start()

    def run(self) -> None:
        setproctitle.getproctitle()  # which cannot be changed later where the environment was changed before
        os.environ.clear()
        os.environ.update(self.environment)
        signal.pthread_sigmask(signal.SIG_SETMASK, self.blocked)
        with pytest.MonkeyPatch.context() as patch:
            start_from(patch, multiprocessing.get_context("fork"))
            compute_in_the_engine(patch)
            super().run()


class WarmContext(multiprocessing.context.ForkServerContext):
    Process = WarmProcess


def start_from(patch: pytest.MonkeyPatch, context: Any) -> None:
    """vLLM starts processes by this context."""
    for name in STARTING:
        patch.setattr(importlib.import_module(name), "get_mp_context", lambda: context)


def compute_in_the_engine(patch: pytest.MonkeyPatch) -> None:
    """An engine of one worker has it in its own process, as on GPUs: on two processors, a process that only waits for the other
    takes half of the time."""
    platform = importlib.import_module("vllm.platforms.cpu").CpuPlatform
    check = platform.check_and_update_config

    def checked(cls: type, config: Any) -> None:
        check(config)
        if config.parallel_config.world_size == 1 and config.parallel_config.distributed_executor_backend == "mp":
            config.parallel_config.distributed_executor_backend = "uni"

    patch.setattr(platform, "check_and_update_config", classmethod(checked))


@contextmanager
def environment() -> Iterator[pytest.MonkeyPatch]:
    """This process has ENVIRONMENT while the block runs."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in ENVIRONMENT.items():
            patch.setenv(name, value)
        yield patch


def fork_server() -> WarmContext:
    """The fork server, which the first call starts. It imports vLLM while this process does."""
    context = WarmContext()
    context.set_forkserver_preload(PRELOADED)
    found = [sorted(Path(known(known(find_spec(package)).origin)).parent.glob(name)) for package, name in LIBRARIES]
    with environment() as patch:
        patch.setenv("LD_PRELOAD", ":".join(str(files[0]) for files in found if files))
        forkserver.ensure_running()
    return context


@contextmanager
def warm_engines() -> Iterator[None]:
    """Engines of this process start from the fork server."""
    context = fork_server()
    with pytest.MonkeyPatch.context() as patch:
        with environment():
            start_from(patch, context)
            compute_in_the_engine(patch)
        yield


def _serve(arguments: list[str], log: Path) -> None:
    os.setsid()
    with log.open("wb") as output:
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
    sys.argv = [SERVER, *arguments]
    importlib.import_module(SERVER).main()


def server_process(arguments: list[str], log: Path) -> WarmProcess:
    """vLLM's server with these arguments, started; it writes to the log."""
    process = fork_server().Process(target=_serve, args=(arguments, log))
    with environment():
        process.start()
    return process
