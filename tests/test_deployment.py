"""The blocks of docs/deployment.md that are marked `sh`, run unchanged except for ports and addresses."""

import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from helpers.deployment_page import block, blocks

pytestmark = pytest.mark.slow

Write = Callable[..., Path]
MARK = "THRESHER_TEST"


def shell(text: str, folder: Path, *, within: tuple[str, ...] = (), **environment: str) -> str:
    """Run a block in a folder; every line must succeed."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    more = {"PATH": path, "PREFECT_LOGGING_LEVEL": "CRITICAL", "RAY_USAGE_STATS_ENABLED": "0", **environment}
    ended = subprocess.run(
        [*within, "bash", "-euxc", text],
        cwd=folder,
        env=os.environ | more,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@pytest.fixture
def mark() -> Iterator[str]:
    """A variable for the environment of the programs of a test; those still running at the end are killed."""
    mark = uuid.uuid4().hex
    yield mark
    for path in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):
            if f"{MARK}={mark}".encode() in path.read_bytes():
                os.kill(int(path.parent.name), signal.SIGKILL)


@contextmanager
def two_machines() -> Iterator[tuple[tuple[str, ...], tuple[str, ...]]]:
    """Two connected network namespaces; yields the command prefix that starts a program in each. Empty if this machine cannot
    make them."""
    names = [f"thresher-{os.getpid()}-{end}" for end in "ab"]
    wires = [f"thr{os.getpid()}{end}" for end in "ab"]

    def ip(*arguments: str) -> None:
        subprocess.run(["ip", *arguments], check=True, capture_output=True)

    try:
        for name in names:
            ip("netns", "add", name)
        ip("link", "add", wires[0], "type", "veth", "peer", "name", wires[1])
        for number, (name, wire) in enumerate(zip(names, wires, strict=True), start=1):
            ip("link", "set", wire, "netns", name)
            ip("-n", name, "addr", "add", f"10.77.0.{number}/24", "dev", wire)
            for device in ("lo", wire):
                ip("-n", name, "link", "set", device, "up")
        yield tuple(("ip", "netns", "exec", name) for name in names)  # type: ignore[misc]
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "delete", name], check=False, capture_output=True)


def can_make_machines() -> bool:
    if os.geteuid() or not shutil.which("ip"):
        return False
    try:
        with two_machines():
            return True
    except subprocess.CalledProcessError:
        return False


def test_a_run(recipe: Write, tmp_path: Path) -> None:
    recipe()
    assert "dataset: data/runs/small/dataset" in shell(block("one").replace("run ", "run --no-prefect "), tmp_path)


def test_a_run_on_a_cluster_of_two_machines(recipe: Write, tmp_path: Path, mark: str) -> None:
    """Each is a network namespace, and has a seat for one replica; without namespaces there is one, with two seats."""
    pytest.importorskip("ray")
    recipe(executor={"kind": "ray", "cpus_per_replica": 0.5, "resources_per_replica": {"seat": 1}})
    here, port = "--num-cpus 3 --object-store-memory 100000000", free_port()

    def run(within: tuple[str, ...], address: str) -> str:
        text = block("ray").replace(
            "executor.kind=ray", f"executor.kind=ray --set executor.address={address}:{port} --no-prefect"
        )
        exports = block("head").splitlines()[0]
        return shell(f"{exports}\n{text}", tmp_path, within=within, **{MARK: mark})

    def head(within: tuple[str, ...], address: str, seats: int) -> None:
        more = f"--port {port} {here} --node-ip-address {address} --include-dashboard false --resources {seat(seats)}"
        shell(block("head").replace("--port 6379", more), tmp_path, within=within, **{MARK: mark})

    def seat(seats: int) -> str:
        return shlex.quote(json.dumps({"seat": seats}))

    if can_make_machines():
        with two_machines() as (first, second):
            head(first, "10.77.0.1", 1)
            more = f"10.77.0.1:{port} {here} --node-ip-address 10.77.0.2 --resources {seat(1)}"
            shell(block("machine").replace("HEAD:6379", more), tmp_path, within=second, **{MARK: mark})
            said = run(first, "10.77.0.1")
    else:
        head((), "127.0.0.1", 2)
        said = run((), "127.0.0.1")
    assert "dataset: " in said
    assert (tmp_path / "runs" / "one" / "dataset" / "README.md").is_file()
    assert len(list((tmp_path / "runs" / "one" / "starts").glob("*.json"))) == 0  # a table has no engine to start


def test_a_run_on_s3(recipe: Write, tmp_path: Path) -> None:
    """Run, publish and audit against moto's server."""
    import boto3  # type: ignore[import-untyped]  # it publishes no types
    from moto.server import ThreadedMotoServer

    recipe(publish={"gates": {"self_check": False}})
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    try:
        host, port = server.get_host_and_port()
        url = f"http://{host}:{port}"
        client = boto3.client(
            "s3", endpoint_url=url, aws_access_key_id="testing", aws_secret_access_key="testing", region_name="us-east-1"
        )
        for bucket in ("runs", "datasets"):
            client.create_bucket(Bucket=bucket)
        said = shell(block("s3").replace("--out", "--no-prefect --out"), tmp_path, AWS_ENDPOINT_URL=url)
        names = {entry["Key"] for entry in client.list_objects_v2(Bucket="datasets")["Contents"]}
        client.close()
    finally:
        server.stop()
    assert "small: complete" in said
    assert "sums/README.md" in names


def test_shell_blocks_that_are_not_run_parse() -> None:
    """Every `thresher ...` of the page by the command line, every setting in YAML by the recipe, the batch job by the shell, and
    the entrypoint of the Kubernetes job by the command line."""
    import yaml

    from schemas.recipe import Recipe
    from thresher.cli import parser

    (slurm,), (job,) = blocks("slurm"), [yaml.safe_load(block("kubernetes", "yaml"))]
    assert subprocess.run(["bash", "-n"], input=slurm, text=True, check=False).returncode == 0
    commands = [text.replace("\\\n", " ") for text in (*blocks("sh"), *blocks(""), slurm)]
    lines = [line for text in commands for line in text.splitlines()] + [job["spec"]["entrypoint"]]
    found = [shlex.split(line)[1:] for line in lines if line.startswith("thresher ")]
    assert len(found) >= 8
    for one in [*found, ["scale", "RUN", "16"]]:
        parser().parse_args(one)
    settings = [entry for entry in map(yaml.safe_load, blocks("yaml")) if "apiVersion" not in entry]
    assert len(settings) == 2
    for one in settings:
        Recipe.model_validate({"name": "page", **one})
