"""What is told of machines that do not fit together."""

from dataclasses import replace
from pathlib import Path

import pytest

from schemas.engines import VllmEngine
from schemas.executors import RayExecutorSpec
from thresher.errors import EngineError
from thresher.executors import machines
from thresher.executors.ray import RayExecutor


def test_machines_are_compared() -> None:
    """Python, the source of thresher, and vLLM where both have one."""
    mine = replace(machines.facts(), machine="driver", engine="0.32.0")
    assert machines.differences(mine, replace(mine, machine="worker")) == []
    assert machines.differences(mine, replace(mine, machine="worker", engine=None)) == []
    said = machines.differences(mine, replace(mine, machine="worker", engine="0.31.0", python="3.12"))
    assert said == [
        f"worker has Python 3.12, driver has {mine.python}; install the same on all machines",
        "worker has vLLM 0.31.0, driver has 0.32.0; install the same on all machines",
    ]


@pytest.mark.parametrize(
    ("time", "said"),
    [(1000, None), (1031, None), (971, None), (1062, "worker is 52 s ahead"), (900, "worker is 100 s behind")],
)
def test_clocks_are_compared_with_when_it_was_asked(time: float, said: str | None) -> None:
    """Asked at 1000, answered at 1010."""
    found = machines.apart(1000, replace(machines.facts(), machine="worker", time=time), 1010)
    assert found is None if said is None else said in (found or "")


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
    """And with a CPU of one of them kept for filters."""
    assert machines.room(there, need) == (fits, beside)


def test_a_probe_is_read_and_answered(tmp_path: Path) -> None:
    """On this machine; where nothing can be written that is said."""
    (tmp_path / "probe-1").write_text("here")
    found = machines.look(str(tmp_path), "probe-1", "probe-1-me")
    assert (found.sees, found.trouble) == ("here", None)
    assert (tmp_path / "probe-1-me").read_text() == found.machine
    assert machines.look(str(tmp_path / "other"), "probe-1", "answer").sees is None
    assert "cannot write" in (machines.look(str(tmp_path / "probe-1"), "a", "b").trouble or "")


def test_an_old_ray_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    ray = pytest.importorskip("ray")
    monkeypatch.setattr(ray, "__version__", "2.9.0")

    with (
        pytest.raises(EngineError, match=r"Ray 2\.9\.0 is too old, wanted is 2\.55 or later: pip install"),
        RayExecutor(RayExecutorSpec(kind="ray"), 1, engine=VllmEngine()),
    ):
        pass
