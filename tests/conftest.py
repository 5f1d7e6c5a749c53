"""Fixtures: the environment of every test, a small recipe on disk, and one Prefect server for the whole session."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import settings

from helpers import FOLDER, known
from helpers.prefect_server import Server

# A shell starts its background jobs with Ctrl-C ignored, and what they start inherits that. Programs that tests interrupt must
# hear it, wherever the tests themselves run.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# A busy machine is no fault of what is tested.
settings.register_profile("thresher", deadline=None)
settings.load_profile("thresher")

os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_UPDATE_DOWNLOAD_COUNTS", "0")
os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
os.environ.setdefault("DO_NOT_TRACK", "1")
os.environ.setdefault("THRESHER_TRUST_CODE", "1")  # filters of their own and files anywhere, but for `untrusting`
os.environ.setdefault("THRESHER_ROOT", "/")
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
os.environ.setdefault("PREFECT_LOGGING_LEVEL", "CRITICAL")
# Test processes share the processors, and threads of OpenMP wait for one another without sleeping: an engine with two is ten
# times slower where something else runs too.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")

CAPITALS = {"France": "Paris", "Spain": "Madrid", "Japan": "Tokyo", "Italy": "Rome"}

ANSWERS = [
    ("France", "Paris", "stop"),
    ("France", "Lyon", "stop"),
    ("France", " Paris", "stop"),
    ("Spain", "Madrid", "stop"),
    ("Japan", "Kyoto", "stop"),
    ("Japan", "Tokyo", "stop"),
    ("Italy", "Rome", "stop"),
    ("Italy", "Rome is a city that", "length"),
]
"""What the replay engine answers: a sample of index i gets answer i of its prompt, from the first again when they end."""

RECIPE: dict[str, Any] = {
    "name": "small",
    "prompts": [
        {"family": "capital", "source": {"kind": "jsonl", "path": "prompts.jsonl"}, "template": "Capital of {{ country }}?"}
    ],
    "engine": {"kind": "replay", "path": "answers.jsonl"},
    "sampling": {"samples_per_prompt": 4, "max_tokens": 16},
    "filters": [{"name": "finished"}, {"name": "exact_answer"}],
    "dedupe": {"within_run": None},
    "near_miss": None,
    "run": {"shard_samples": 10, "filter_workers": 0},
}
"""4 prompts, 4 samples and an anchor each, 2 prompts to a shard. With other `filters` it has no `dedupe` but what a test sets."""


@pytest.fixture
def untrusting(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user who has consented to nothing, as most have: neither by variables nor in a configuration."""
    for variable in ("THRESHER_TRUST_CODE", "THRESHER_ROOT"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("THRESHER_CONFIG", str(tmp_path_factory.mktemp("none") / "config.toml"))


@pytest.fixture
def recipe(tmp_path: Path) -> Callable[..., Path]:
    """Write the small recipe, changed by `recipe(filters=[...])`, beside its prompts and answers; returns its path."""

    def write(**changes: Any) -> Path:
        rows = [json.dumps({"country": country, "answer": capital}) + "\n" for country, capital in CAPITALS.items()]
        (tmp_path / "prompts.jsonl").write_text("".join(rows))
        answers = [
            json.dumps({"prompt": f"Capital of {country}?", "completion": text, "finish_reason": reason}) + "\n"
            for country, text, reason in ANSWERS
        ]
        (tmp_path / "answers.jsonl").write_text("".join(answers))
        path = tmp_path / "recipe.yaml"
        without = {"dedupe": None} if "filters" in changes else {}
        path.write_text(yaml.safe_dump(RECIPE | without | changes, sort_keys=False))
        return path

    return write


@pytest.fixture(scope="module", params=["bwrap", "landlock"])
def layer(request: pytest.FixtureRequest) -> Any:
    """Each layer of the sandbox that this machine has."""
    from helpers.programs import LAYERS

    if request.param not in LAYERS:
        pytest.skip(f"no {request.param} on this machine")
    return LAYERS[request.param]


@pytest.fixture(scope="module")
def sandbox(layer: Any) -> Iterator[Any]:
    """One zygote and its spare in each layer."""
    from filters.sandbox import Limits
    from filters.sandbox.pool import Pool

    pool = Pool(layer, Limits(), 1)
    yield pool
    pool.close()


@pytest.fixture(scope="module")
def warm_engines() -> Iterator[None]:
    """vLLM's processes of this process are forked from one that has imported it: an engine starts in 4 s instead of 16."""
    from helpers import warm_vllm

    with warm_vllm.warm_engines():
        yield


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A real Prefect server with a database of its own. It takes 25 s to start, and a process sends all its events to the first
    server that it connects to, so the session has one."""
    with Server(tmp_path_factory.mktemp("prefect")) as made:
        yield made


@pytest.fixture
def prefect_server(server: Any) -> Iterator[Any]:
    """Flows of this process report to that server."""
    from prefect.settings import PREFECT_API_URL, PREFECT_HOME, temporary_settings

    with temporary_settings({PREFECT_API_URL: server.url, PREFECT_HOME: server.folder / "home"}):
        yield server


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """S3 (moto's server), one for all tests: clients keep the first address that they connect to."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(scope="module")
def s3(s3_server: str) -> Iterator[str]:
    """A bucket on that server; address and keys are in the environment."""
    import fsspec

    before = dict(os.environ)
    os.environ |= {"AWS_ENDPOINT_URL": s3_server, "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}
    os.environ |= {"AWS_DEFAULT_REGION": "us-east-1"}
    with contextlib.suppress(FileExistsError):
        fsspec.filesystem("s3", skip_instance_cache=True).mkdir("bucket")
    yield "s3://bucket"
    for name in set(os.environ) - set(before):
        del os.environ[name]


@pytest.fixture
def hub(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Any]:
    """A Hub on 127.0.0.1, and `hub.environment` for programs that use it; the parameter is the way files are sent."""
    from helpers.hub_server import Fault, Hub

    with Hub(tmp_path / "hub") as running:
        server: Any = running
        server.Fault = Fault
        server.environment = os.environ | {
            "HF_ENDPOINT": server.url,
            "HF_HOME": str(tmp_path / "home"),
            "HF_TOKEN": "hf_alice",
            "HF_HUB_OFFLINE": "0",
            "HF_HUB_DISABLE_XET": "1" if request.param == "lfs" else "0",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "HF_HUB_DISABLE_UPDATE_CHECK": "1",
            "USE_TORCH": "0",  # which streaming would import, for seconds
        }
        clients: dict[str, subprocess.Popen[str]] = {}

        def ask(**asked: list[str]) -> tuple[int, str, str]:
            """A command of thresher, or what `load_dataset` reads: status, output, errors (tests/helpers/hub_client.py)."""
            key = json.dumps(server.environment, sort_keys=True)
            if key not in clients:
                program = [sys.executable, str(FOLDER / "hub_client.py")]
                with (tmp_path / "clients.log").open("a") as log:
                    clients[key] = subprocess.Popen(
                        program, env=server.environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True
                    )
            questions, answers = known(clients[key].stdin), known(clients[key].stdout)
            questions.write(json.dumps(asked) + "\n")
            questions.flush()
            status, output, errors = json.loads(answers.readline())
            return status, output, errors

        server.ask = ask
        yield server
        for client in clients.values():
            client.communicate(timeout=30)


@pytest.fixture
def nightly(tmp_path: Path) -> Callable[..., Any]:
    """Write runs into one folder: `nightly(name, plan)` gives a finished run that was started a second after the one before."""
    from helpers.runs import finished_run

    names: list[str] = []

    def write(name: str, plan: Any, *, recipe_name: str = "small", **settings: Any) -> Any:
        run = finished_run(tmp_path / "runs" / name, plan, key=name, name=recipe_name, first=100 * len(names), **settings)
        names.append(name)
        os.utime(run.store.path("run.json"), (1_700_000_000 + len(names),) * 2)
        return run

    return write


@pytest.fixture
def load(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """`load(folder, view)` reads a written view with `datasets`."""
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "TORCH_AVAILABLE", False)  # Streaming would import torch, which takes seconds.
    cache = tmp_path_factory.mktemp("cache")

    def load(folder: Path, view: str, *, streaming: bool = False, split: str = "train") -> Any:
        return datasets.load_dataset(str(folder), view, split=split, streaming=streaming, cache_dir=str(cache))

    datasets.disable_progress_bars()
    return load
