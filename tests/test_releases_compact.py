"""Shards of many releases become few, with the same rows."""

from pathlib import Path

import pytest

from helpers.releases import config_rows, release_run, sft_ids
from helpers.runs import two_prompts_run
from thresher.releases.change import revoke
from thresher.releases.compact import compact
from thresher.releases.repository import releases


@pytest.mark.slow
def test_rows_stay_and_files_become_fewer(tmp_path: Path) -> None:
    repo = str(tmp_path / "released")
    for name in ("one", "two", "three"):
        release_run(repo, two_prompts_run(tmp_path, name))
    before = {view: config_rows(repo, view) for view in ("sft", "prompts", "rollouts")}

    compact(repo)

    assert {view: config_rows(repo, view) for view in before} == before
    (release,) = releases(repo).releases
    assert [len(release.views[view]) for view in before] == [1, 1, 1]
    assert [merged.name for merged in release.merged] == ["small"] * 3
    assert compact(repo).commit is None


def test_revoked_samples_are_left_out(tmp_path: Path) -> None:
    repo = str(tmp_path / "released")
    release_run(repo, two_prompts_run(tmp_path, "one"))
    kept, revoked = sft_ids(repo)
    revoke(repo, [revoked], "wrong")

    compact(repo)

    assert sft_ids(repo) == [kept]
    assert revoked not in {row["sample_id"] for row in config_rows(repo, "rollouts")}
    assert config_rows(repo, "revoked") == []
