"""Gates: each refuses a release for a reason of its own."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from helpers import known
from helpers.runs import LOOSE, publish_loosely, two_prompts_run
from helpers.small_run import BAD, GOOD
from schemas.dataset import GatesSpec
from schemas.release import Release, RepositoryManifest
from thresher.auditing.compare import since
from thresher.auditing.count_run import count
from thresher.auditing.drift import drift
from thresher.cli import main
from thresher.errors import PublishError
from thresher.estimators.calibration import calibrations, empty_sums
from thresher.pool.run import Run, open_run
from thresher.releases.gates import against, drifted, figures, gates
from thresher.releases.repository import releases


def test_each_gate_has_its_reason(tmp_path: Path) -> None:
    run = open_run(two_prompts_run(tmp_path, "one"))
    found = count(run)
    loose = GatesSpec.model_validate({**LOOSE})
    assert gates(run, found, loose) == []
    faulty = replace(found, problems=("counts",), calibration_faults=("not at temperature 1",), alarms=("all unparsed",))
    assert gates(run, faulty, loose) == ["counts", "not at temperature 1"]
    assert gates(run, faulty, loose.model_copy(update={"calibration": False})) == ["counts"]
    untested = loose.model_copy(update={"calibration": "tested"})
    assert gates(run, replace(found, calibration=()), untested) == ["calibration: not tested: no tokens were calibrated"]
    few = calibrations({("engine", ""): (10, empty_sums())})
    assert gates(run, replace(found, calibration=tuple(few)), untested) == ["calibration: engine: not tested: too few tokens"]
    imported = replace(faulty, origin="brought")
    assert gates(run, imported, GatesSpec.model_validate({"calibration": False})) == ["counts", "all unparsed"]
    assert gates(run, replace(found, total=replace(found.total, hits=0)), GatesSpec.model_validate({**LOOSE, "hits": 1})) == [
        "0 hits, fewer than 1; --gate hits=0 releases a run without hits"
    ]
    assert GatesSpec().hits == 1
    open_ones = replace(found, outcomes={"keep": 1, "drop": 1, "undecided": 2})
    assert "50.0% of the samples are undecided" in gates(run, open_ones, loose.model_copy(update={"undecided": 0.4}))[0]
    better = figures(found) | {"effective_solutions": 2.0, "pass_rate": 1.0}
    last = Release(
        version="v1", at="", run="r", dataset="d", name="small", thresher_version="0", figures=better, rows={}, views={}
    )
    reasons = against(found, RepositoryManifest(columns={}, releases=(last,)), GatesSpec())
    assert [reason.split(" (")[0] for reason in reasons] == ["pass_rate fell from 1", "effective_solutions fell from 2"]


@pytest.mark.slow
def test_gate_refuses_drift_and_names_it(nightly: Callable[..., Run], tmp_path: Path) -> None:
    good, bad, repo = nightly("good", GOOD), nightly("bad", BAD), tmp_path / "repo"
    publish_loosely(good, repo, drift="refuse")
    found = {entry.of: entry for entry in drift(bad, good)}
    assert [of for of, one in found.items() if one.drifted] == ["pass rate", "answer"]

    with pytest.raises(PublishError) as refused:
        publish_loosely(bad, repo, drift="refuse")

    lines = [line.strip() for line in str(refused.value).splitlines()[1:]]
    begun = "2023-11-14T22:13:21"
    assert lines == [
        f"drift since good (begun {begun}): pass rate 50.0 % to 12.5 % (p {found['pass rate'].p:.2g})",
        f"drift since good (begun {begun}): share dropped by answer 33.3 % to 87.5 % (p {found['answer'].p:.2g})",
    ]
    assert len(releases(str(repo)).releases) == 1
    assert main(["publish", bad.root, "--repo", str(repo), "--gate", "drift=maybe"]) == 1


@pytest.mark.slow
def test_gate_is_off_by_default_and_silent_without_a_run_before(nightly: Callable[..., Run]) -> None:
    nightly("good", GOOD)
    found = known(since(nightly("bad", BAD)))

    assert drifted(found, GatesSpec()) == []
    assert len(drifted(found, GatesSpec(drift="refuse"))) == len(found.drifted) == 2
    assert drifted(None, GatesSpec(drift="refuse")) == []
