"""The blocks of docs/deployment.md that are marked `sh`, run as they stand, but for ports and addresses of this machine."""

import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

PAGE = (Path(__file__).parents[1] / "docs" / "deployment.md").read_text()
Write = Callable[..., Path]
MARK = "THRESHER_TEST"


def block(name: str) -> str:
    (found,) = re.findall(rf"^```sh {name}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    return found


def shell(text: str, folder: Path, **environment: str) -> str:
    """Run a block in a folder, every line of which has to succeed."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    more = {"PATH": path, "PREFECT_LOGGING_LEVEL": "CRITICAL", "RAY_USAGE_STATS_ENABLED": "0", **environment}
    ended = subprocess.run(
        ["bash", "-euxc", text], cwd=folder, env=os.environ | more, capture_output=True, text=True, timeout=300, check=False
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@pytest.fixture
def mark() -> Iterator[str]:
    """A variable for the environment of what a test begins; whatever of it is left is ended after."""
    mark = uuid.uuid4().hex
    yield mark
    for path in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):
            if f"{MARK}={mark}".encode() in path.read_bytes():
                os.kill(int(path.parent.name), signal.SIGKILL)


def test_a_run_on_a_cluster(recipe: Write, tmp_path: Path, mark: str) -> None:
    pytest.importorskip("ray")
    recipe(executor={"kind": "ray", "cpus_per_replica": 0.5})
    port = free_port()
    options = f"--port {port} --num-cpus 3 --node-ip-address 127.0.0.1 --include-dashboard false"
    text = block("ray").replace("--port 6379", options)
    text = text.replace(
        "--set executor.kind=ray", f"--set executor.kind=ray --set executor.address=127.0.0.1:{port} --no-prefect"
    )
    said = shell(text, tmp_path, **{MARK: mark})
    assert "dataset: " in said
    assert (tmp_path / "runs" / "one" / "dataset" / "README.md").is_file()


def test_a_run_on_s3(recipe: Write, tmp_path: Path) -> None:
    """Run, publish and audit against moto's server."""
    import boto3
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
        names = {one["Key"] for one in client.list_objects_v2(Bucket="datasets")["Contents"]}
        client.close()
    finally:
        server.stop()
    assert "small: complete" in said
    assert "sums/README.md" in names


def test_what_is_not_run_is_at_least_a_command_of_thresher() -> None:
    """Every `thresher ...` of the page is parsed by the command line; every setting in YAML by the recipe."""
    import yaml

    from schemas.recipe import Recipe
    from thresher.cli import _parser

    blocks = re.findall(r"^```([^\n]*)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    lines = [line for kind, text in blocks if kind != "yaml" for line in text.splitlines()]
    commands = [shlex.split(line)[1:] for line in lines if line.startswith("thresher ")]
    assert len(commands) >= 4
    for one in [*commands, ["scale", "RUN", "16"]]:
        _parser().parse_args(one)
    settings = [text for kind, text in blocks if kind == "yaml"]
    assert len(settings) == 2
    for text in settings:
        Recipe.model_validate({"name": "page", **yaml.safe_load(text)})
