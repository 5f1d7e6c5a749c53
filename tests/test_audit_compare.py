"""Drift since the run before: a gate of releases, and a word on the card and in the report."""

import os
from pathlib import Path
from typing import Any

import pytest

from helpers.small_run import small_run
from schemas.recipe import GatesSpec, PublishSpec
from thresher.audit.compare import run_before, since
from thresher.audit.count_run import audit
from thresher.audit.drift import drift
from thresher.audit.report import report
from thresher.cli import main
from thresher.dataset.write import write_dataset
from thresher.errors import PublishError
from thresher.pool.store import Store
from thresher.releases.gates import drifted
from thresher.releases.publish import publish
from thresher.releases.repository import releases

GOOD = [("sums", ["right", "right", "wrong", "cut"], None)] * 12
BAD = [("sums", ["wrong", "wrong", "wrong", "right" if number % 2 else "wrong"], None) for number in range(12)]
pytestmark = pytest.mark.slow
LOOSE = {"undecided": 1.0, "self_check": False, "pass_rate_drop": 1.0, "diversity_drop": 1.0}


@pytest.fixture
def run(tmp_path: Path) -> Any:
    """A run in a folder of runs; each begins a second after the one before."""
    made = []

    def write(name: Any, plan: Any, *, recipe_name: str = "small", **more: Any) -> Any:
        store = small_run(tmp_path / "runs" / name, plan, first=100 * len(made), **more)
        changed = {"sampling_key": name.ljust(32, "0"), "name": recipe_name}
        store.write_model("run.json", store.manifest().model_copy(update=changed))
        made.append(name)
        os.utime(store.path("run.json"), (1_700_000_000 + len(made),) * 2)
        if "stop_after" not in more:
            write_dataset(store, audit=audit(store))
        return store

    return write


def released(store: Store, repo: Any, **gates: Any) -> Any:
    return publish(store.root, PublishSpec.model_validate({"repo": str(repo), "gates": LOOSE | gates}))


def card(repo: Any) -> Any:
    return (repo / "README.md").read_text()


def test_gate_refuses_what_drifted_and_says_what(run: Any, tmp_path: Path) -> None:
    good, bad, repo = run("good", GOOD), run("bad", BAD), tmp_path / "repo"
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


def test_card_says_what_drifted_where_it_is_allowed_and_where_it_is_forced(run: Any, tmp_path: Path) -> None:
    good, bad, repo = run("good", GOOD), run("bad", BAD), tmp_path / "repo"
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
    publish(bad.root, spec, force="better prompts")
    assert "drift since good (begun" in card(other)
    assert str(tmp_path / "runs") not in card(other)


def test_report_says_what_drifted_without_being_asked(run: Any, capsys: pytest.CaptureFixture[str]) -> None:
    good, bad, again = run("good", GOOD), run("bad", BAD), run("again", BAD)

    assert "<h2>Drift</h2>" not in report(good)
    page = report(bad)
    assert 'class="drift bad">Drifted: pass rate 50.0 % to 12.5 % (p ' in page
    assert f"Against {good.root}, begun 2023-11-14 22:13" in page
    assert 'class="drift">Nothing drifted.' in report(again)
    assert "Drifted: pass rate" in report(again, before=good)
    assert main(["audit", "--all", str(Path(good.root).parent), "--csv"]) == 0
    rows = capsys.readouterr().out.splitlines()
    assert ["pass rate 50.0 % to 12.5 %" in row for row in rows] == [False, False, True, False]


def test_run_before_is_the_last_complete_one_of_that_name(run: Any, tmp_path: Path) -> None:
    first = run("first", GOOD)
    run("stranger", BAD, recipe_name="other")
    run("cut", BAD, stop_after=2)
    broken = tmp_path / "runs" / "broken" / "run.json"
    broken.parent.mkdir()
    broken.write_text("{}")
    os.utime(broken, (1_700_000_004,) * 2)
    mine, later = run("mine", BAD), run("later", GOOD)
    os.utime(mine.path("run.json"), (1_700_000_005,) * 2)
    os.utime(later.path("run.json"), (1_700_000_006,) * 2)

    assert run_before(mine).root == first.root
    assert run_before(later).root == mine.root
    assert run_before(first) is None
    assert since(first) is None


def test_gate_is_off_by_default_and_silent_without_a_run_before(run: Any) -> None:
    run("good", GOOD)
    found = since(run("bad", BAD))

    assert drifted(found, GatesSpec()) == []
    assert len(drifted(found, GatesSpec(drift="refuse"))) == len(found.drifted) == 2
    assert drifted(None, GatesSpec(drift="refuse")) == []
