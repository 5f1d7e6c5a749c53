"""Any interleaving of processes on one run directory: stopped, continued and killed at random instants, they lose nothing."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from helpers import own_samples

PROGRAM = Path(own_samples.__file__).with_name("interleaved.py")
SCHEDULES = int(os.environ.get("THRESHER_SCHEDULES", "50"))
"""Schedules to try: seeds from THRESHER_FIRST_SCHEDULE on."""
FIRST = int(os.environ.get("THRESHER_FIRST_SCHEDULE", "0"))
AT_A_TIME = 2


@pytest.mark.slow
def test_random_interleavings_of_three_processes_lose_nothing(tmp_path: Path) -> None:
    """At no time are there fewer valid rows than before, a written shard has what was planned, every process ends right or is
    refused before it draws, and the last run ends with the dataset of a run that nothing disturbed."""
    count = SCHEDULES // AT_A_TIME
    programs = [
        subprocess.Popen(
            [sys.executable, str(PROGRAM), str(tmp_path / str(part)), str(FIRST + part * count), str(count)],
            stdout=subprocess.PIPE,
            text=True,
        )
        for part in range(AT_A_TIME)
    ]
    said = [program.communicate(timeout=60 + 10 * SCHEDULES)[0].splitlines() for program in programs]

    assert [json.loads(line) for lines in said for line in lines] == ["ended"] * AT_A_TIME
