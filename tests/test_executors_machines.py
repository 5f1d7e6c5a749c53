"""Machines that do not fit together are named, with what differs."""

from dataclasses import replace
from pathlib import Path

import pytest

from thresher.executors import machines


def test_machines_are_compared() -> None:
    """Python, the source of thresher, and vLLM if both have it."""
    driver = replace(machines.facts(), machine="driver", engine="0.32.0")
    assert machines.differences(driver, replace(driver, machine="worker")) == []
    assert machines.differences(driver, replace(driver, machine="worker", engine=None)) == []
    differences = machines.differences(driver, replace(driver, machine="worker", engine="0.31.0", python="3.12"))
    assert differences == [
        f"worker has Python 3.12, driver has {driver.python}; install the same on all machines",
        "worker has vLLM 0.31.0, driver has 0.32.0; install the same on all machines",
    ]


@pytest.mark.parametrize(
    ("time", "fault"),
    [(1000, None), (1031, None), (971, None), (1062, "worker is 52 s ahead"), (900, "worker is 100 s behind")],
)
def test_a_clock_is_compared_with_the_times_of_question_and_answer(time: float, fault: str | None) -> None:
    """Asked at 1000, answered at 1010."""
    message = machines.clock_fault(1000, replace(machines.facts(), machine="worker", time=time), 1010)
    assert message is None if fault is None else fault in (message or "")


@pytest.mark.parametrize(
    ("there", "need", "fits", "beside"),
    [
        ([{"CPU": 8, "GPU": 4}], {"CPU": 1, "GPU": 2}, 2, 2),
        ([{"CPU": 2, "GPU": 4}], {"CPU": 1, "GPU": 2}, 2, 1),
        ([{"CPU": 1, "GPU": 1}, {"CPU": 1, "GPU": 1}], {"CPU": 1, "GPU": 2}, 0, 0),
        ([{"CPU": 1}, {"CPU": 2}], {"CPU": 1}, 3, 2),
        ([{"CPU": 2}, {"CPU": 2}], {"CPU": 0.5}, 8, 6),
        ([{"CPU": 2}, {"CPU": 1, "GPU": 1}], {"CPU": 1, "GPU": 1}, 1, 1),
        ([{"GPU": 8}], {"GPU": 1}, 8, 0),
        ([{"CPU": 1, "GPU": 0.3}], {"CPU": 0, "GPU": 0.1}, 3, 3),
        ([], {"CPU": 1}, 0, 0),
    ],
)
def test_room_is_counted_by_machine(there: list[dict[str, float]], need: dict[str, float], fits: int, beside: int) -> None:
    """Also if one of them keeps a CPU for filters."""
    assert machines.room(there, need) == (fits, beside)


def test_a_probe_is_read_and_answered(tmp_path: Path) -> None:
    """On this machine; a failure to write is reported."""
    (tmp_path / "probe-1").write_text("here")
    facts = machines.look(str(tmp_path), "probe-1", "probe-1-me")
    assert (facts.sees, facts.trouble) == ("here", None)
    assert (tmp_path / "probe-1-me").read_text() == facts.machine
    assert machines.look(str(tmp_path / "other"), "probe-1", "answer").sees is None
    assert "cannot write" in (machines.look(str(tmp_path / "probe-1"), "a", "b").trouble or "")
