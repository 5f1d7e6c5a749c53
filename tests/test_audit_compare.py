"""Drift since the run before: a gate of releases, and a word on the card and in the report."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from helpers import known
from helpers.runs import LOOSE, finished_run
from helpers.small_run import Plan
from schemas.dataset import GatesSpec, PublishSpec
from thresher.audit.compare import run_before, since
from thresher.audit.drift import drift
from thresher.audit.report import report
from thresher.cli import main
from thresher.errors import PublishError
from thresher.pool.run import Run
from thresher.releases.gates import drifted
from thresher.releases.publish import Published, publish
from thresher.releases.repository import releases

GOOD: Plan = [("sums", ["right", "right", "wrong", "cut"], None)] * 12
BAD: Plan = [("sums", ["wrong", "wrong", "wrong", "right" if number % 2 else "wrong"], None) for number in range(12)]
pytestmark = pytest.mark.slow


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Run]:
    """Write a run into a folder of runs; each begins a second after the one before."""
    written: list[str] = []

    def write(name: str, plan: Plan, *, recipe_name: str = "small", **settings: Any) -> Run:
        first = 100 * len(written)
        run = finished_run(tmp_path / "runs" / name, plan, key=name, name=recipe_name, first=first, **settings)
        written.append(name)
        os.utime(run.store.path("run.json"), (1_700_000_000 + len(written),) * 2)
        return run

    return write


def released(run: Run, repo: Path, **gates: Any) -> Published:
    return publish(run, PublishSpec.model_validate({"repo": str(repo), "gates": LOOSE | gates}))


def card(repo: Path) -> str:
    return (repo / "README.md").read_text()


def test_gate_refuses_what_drifted_and_says_what(write: Callable[..., Run], tmp_path: Path) -> None:
    good, bad, repo = write("good", GOOD), write("bad", BAD), tmp_path / "repo"
    released(good, repo, drift="refuse")
    found = {one.of: one for one in drift(bad, good)}
    assert [of for of, one in found.items() if one.drifted] == ["pass rate", "answer"]

    with pytest.raises(PublishError) as refused:
        released(bad, repo, drift="refuse")

    lines = [line.strip() for line in str(refused.value).splitlines()[1:]]
    begun = "2023-11-14T22:13:21"
    assert lines == [
        f"drift since good (begun {begun}): pass rate 50.0 % to 12.5 % (p {found['pass rate'].p:.2g})",
        f"drift since good (begun {begun}): share dropped by answer 33.3 % to 87.5 % (p {found['answer'].p:.2g})",
    ]
    assert len(releases(str(repo)).releases) == 1
    assert main(["publish", bad.root, "--repo", str(repo), "--gate", "drift=maybe"]) == 1


def test_card_says_what_drifted_where_it_is_allowed_and_where_it_is_forced(write: Callable[..., Run], tmp_path: Path) -> None:
    good, bad, repo = write("good", GOOD), write("bad", BAD), tmp_path / "repo"
    released(good, repo)
    assert "## Drift" not in card(repo)

    released(bad, repo)

    said = card(repo).split("## Drift\n")[1].split("## Diversity")[0]
    assert "Since the run before this one, begun 2023-11-14, beyond what chance explains" in said
    assert said.count("\n* ") == 2
    assert "* pass rate 50.0 % to 12.5 % (p " in said
    assert "## Drift" not in Path(bad.root, "dataset", "README.md").read_text()
    other = tmp_path / "other"
    spec = PublishSpec.model_validate({"repo": str(other), "gates": LOOSE | {"drift": "refuse"}})
    publish(bad, spec, force="better prompts")
    assert "drift since good (begun" in card(other)
    assert str(tmp_path / "runs") not in card(other)


def test_report_says_what_drifted_without_being_asked(write: Callable[..., Run], capsys: pytest.CaptureFixture[str]) -> None:
    good, bad, again = write("good", GOOD), write("bad", BAD), write("again", BAD)

    assert "<h2>Drift</h2>" not in report(good)
    page = report(bad)
    assert 'class="drift bad">Drifted: pass rate 50.0 % to 12.5 % (p ' in page
    assert f"Against {good.root}, begun 2023-11-14 22:13" in page
    assert 'class="drift">Nothing drifted.' in report(again)
    assert "Drifted: pass rate" in report(again, before=good)
    assert main(["audit", "--all", str(Path(good.root).parent), "--csv"]) == 0
    rows = capsys.readouterr().out.splitlines()
    assert ["pass rate 50.0 % to 12.5 %" in row for row in rows] == [False, False, True, False]


def test_run_before_is_the_last_complete_one_of_that_name(write: Callable[..., Run], tmp_path: Path) -> None:
    first = write("first", GOOD)
    write("stranger", BAD, recipe_name="other")
    write("cut", BAD, stop_after=2)
    broken = tmp_path / "runs" / "broken" / "run.json"
    broken.parent.mkdir()
    broken.write_text("{}")
    os.utime(broken, (1_700_000_004,) * 2)
    mine, later = write("mine", BAD), write("later", GOOD)
    os.utime(mine.store.path("run.json"), (1_700_000_005,) * 2)
    os.utime(later.store.path("run.json"), (1_700_000_006,) * 2)

    assert known(run_before(mine)).root == first.root
    assert known(run_before(later)).root == mine.root
    assert run_before(first) is None
    assert since(first) is None


def test_gate_is_off_by_default_and_silent_without_a_run_before(write: Callable[..., Run]) -> None:
    write("good", GOOD)
    found = known(since(write("bad", BAD)))

    assert drifted(found, GatesSpec()) == []
    assert len(drifted(found, GatesSpec(drift="refuse"))) == len(found.drifted) == 2
    assert drifted(None, GatesSpec(drift="refuse")) == []
