"""A release is refused before anything has changed, with the reason."""

import shutil
from pathlib import Path

import pytest

from helpers.releases import release_run
from helpers.runs import two_prompts_run
from thresher.errors import PublishError
from thresher.pool.run import open_run
from thresher.releases.compact import compact
from thresher.releases.publish import publish
from thresher.releases.repository import releases


def test_columns_that_drifted_are_refused_with_a_diff(tmp_path: Path) -> None:
    repo = str(tmp_path / "released")
    release_run(repo, two_prompts_run(tmp_path, "one"))

    with pytest.raises(PublishError) as error:
        release_run(repo, two_prompts_run(tmp_path, "two", prompt_format="text"))

    lines = str(error.value).splitlines()
    assert "the columns of sft differ from those of earlier releases" in lines[0]
    assert lines[1].strip() == "- prompt: list<item: struct<role: string, content: string>>"
    assert [line.strip() for line in lines[3:]] == ["+ prompt: string", "+ completion: string"]
    assert len(releases(repo).releases) == 1


@pytest.mark.slow
def test_places_that_cannot_be_published_to_are_refused(tmp_path: Path) -> None:
    one = two_prompts_run(tmp_path, "one")
    with pytest.raises(PublishError, match="Protocol not known: nowhere"):
        release_run("nowhere://a/b", one)
    with pytest.raises(PublishError, match="has no pull requests"):
        release_run(str(tmp_path / "released"), one, create_pr=True)
    with pytest.raises(PublishError, match="cannot be private"):
        release_run(str(tmp_path / "released"), one, private=True)
    with pytest.raises(PublishError, match="names no repository; set publish"):
        publish(open_run(one))
    with pytest.raises(PublishError, match="has no releases"):
        compact(str(tmp_path / "nothing"))
    (tmp_path / "file").write_text("x")
    with pytest.raises(PublishError, match=r"file: .*nothing has changed"):
        release_run(str(tmp_path / "file"), one)
    shutil.copytree(one / "dataset", tmp_path / "kept")
    for file in (one / "dataset").glob("sft/train/*"):
        file.write_bytes(file.read_bytes()[:-1] + b"x")
    with pytest.raises(PublishError, match=r"its dataset is damaged.*thresher run writes it"):
        release_run(str(tmp_path / "released"), one)
