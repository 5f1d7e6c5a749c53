"""The same contract asked of the Hub of the tests, over Xet and over LFS, and with -m realhub of the real one: HF_TOKEN is to
write to THRESHER_REALHUB, a name or an organisation, where a repository is made and deleted."""

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from helpers import FOLDER


def kept(repo: str, environment: dict[str, str]) -> None:
    command = [sys.executable, str(FOLDER / "hub_contract.py"), repo]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith("contract kept\n")


@pytest.mark.slow
@pytest.mark.parametrize("hub", ["xet", "lfs"], indirect=True)
def test_the_hub_of_the_tests_keeps_the_contract(hub: Any) -> None:
    kept("acme/contract", hub.environment)
    assert "acme/contract" not in hub.repositories
    sent = {request["path"].split("/")[1] for request in hub.log if request["method"] in ("POST", "PUT")}
    assert ("_lfs" in sent) == (hub.environment["HF_HUB_DISABLE_XET"] == "1")


@pytest.mark.realhub
@pytest.mark.skipif(not os.environ.get("THRESHER_REALHUB"), reason="THRESHER_REALHUB names no namespace to write to")
@pytest.mark.parametrize("no_xet", ["0", "1"], ids=["xet", "lfs"])
def test_the_real_hub_keeps_the_contract(tmp_path: Path, no_xet: str) -> None:
    more = {"HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": no_xet, "HF_DATASETS_CACHE": str(tmp_path)}
    kept(f"{os.environ['THRESHER_REALHUB']}/thresher-contract-{time.time_ns()}", os.environ | more)
