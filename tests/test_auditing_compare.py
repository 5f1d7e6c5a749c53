"""The run before, and drift since then on the card and in the report."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from helpers import known
from helpers.runs import LOOSE, publish_loosely
from helpers.small_run import BAD, GOOD
from schemas.dataset import PublishSpec
from thresher.auditing.compare import run_before, since
from thresher.auditing.pages.report import report
from thresher.cli import main
from thresher.pool.run import Run
from thresher.releases.publish import publish

pytestmark = pytest.mark.slow


def card(repo: Path) -> str:
    return (repo / "README.md").read_text()


def test_card_names_drift_that_is_allowed_or_forced(nightly: Callable[..., Run], tmp_path: Path) -> None:
    good, bad, repo = nightly("good", GOOD), nightly("bad", BAD), tmp_path / "repo"
    publish_loosely(good, repo)
    assert "## Drift" not in card(repo)

    publish_loosely(bad, repo)

    said = card(repo).split("## Drift\n")[1].split("## Diversity")[0]
    assert "Changes since the previous run, started 2023-11-14, that chance does not explain" in said
    assert said.count("\n* ") == 2
    assert "* pass rate 50.0 % to 12.5 % (p " in said
    assert "## Drift" not in Path(bad.root, "dataset", "README.md").read_text()
    other = tmp_path / "other"
    spec = PublishSpec.model_validate({"repo": str(other), "gates": LOOSE | {"drift": "refuse"}})
    publish(bad, spec, force="better prompts")
    assert "drift since good (begun" in card(other)
    assert str(tmp_path / "runs") not in card(other)


def test_report_names_drift_since_the_run_before(nightly: Callable[..., Run], capsys: pytest.CaptureFixture[str]) -> None:
    good, bad, again = nightly("good", GOOD), nightly("bad", BAD), nightly("again", BAD)

    assert "<h2>Drift</h2>" not in report(good)
    page = report(bad)
    assert 'class="drift bad">Drifted: pass rate 50.0 % to 12.5 % (p ' in page
    assert "Compared with good, started 2023-11-14 22:13" in page
    assert 'class="drift">Nothing drifted.' in report(again)
    assert "Drifted: pass rate" in report(again, before=good)
    assert main(["audit", "--all", str(Path(good.root).parent), "--csv"]) == 0
    rows = capsys.readouterr().out.splitlines()
    assert ["pass rate 50.0 % to 12.5 %" in row for row in rows] == [False, False, True, False]


def test_run_before_is_the_last_complete_one_of_that_name(nightly: Callable[..., Run], tmp_path: Path) -> None:
    first = nightly("first", GOOD)
    nightly("stranger", BAD, recipe_name="other")
    nightly("cut", BAD, stop_after=2)
    broken = tmp_path / "runs" / "broken" / "run.json"
    broken.parent.mkdir()
    broken.write_text("{}")
    os.utime(broken, (1_700_000_004,) * 2)
    mine, later = nightly("mine", BAD), nightly("later", GOOD)
    os.utime(mine.store.path("run.json"), (1_700_000_005,) * 2)
    os.utime(later.store.path("run.json"), (1_700_000_006,) * 2)

    assert known(run_before(mine)).root == first.root
    assert known(run_before(later)).root == mine.root
    assert run_before(first) is None
    assert since(first) is None
