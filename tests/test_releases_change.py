"""Changes of a repository: rolled back, revoked, compacted."""

from pathlib import Path

import pytest

from helpers.releases import config_rows, release_run, sft_ids
from helpers.runs import finished_run, two_prompts_run
from thresher.errors import PublishError
from thresher.releases.change import read_sample_ids, revoke, rollback
from thresher.releases.compact import compact
from thresher.releases.places.folder import Folder
from thresher.releases.places.place import Change
from thresher.releases.readme import END
from thresher.releases.repository import releases


@pytest.mark.slow
def test_text_below_the_generated_card_survives_every_change(tmp_path: Path) -> None:
    repo, card = str(tmp_path / "released"), tmp_path / "released" / "README.md"
    first = release_run(repo, two_prompts_run(tmp_path, "one"))

    def written(words: str) -> None:
        """As a person edits a repository: a commit of its own."""
        place = Folder(repo)
        text = place.text(place.head(), "README.md") or ""
        text = text.split(END)[0].replace("---\n", "---\nviewer: false\n", 1) + f"{END}\n{words}\n"
        place.commit(Change(adds={"README.md": text.encode()}), "words", parent=place.head(), tag=None)

    release_run(repo, two_prompts_run(tmp_path, "two"))
    written("## Known faults\n\nSome.")
    revoke(repo, [sft_ids(repo)[0]], "wrong")
    assert 'load_dataset("ORG/NAME", "revoked", split="train")' in card.read_text()
    third = two_prompts_run(tmp_path, "three")
    for change in (lambda: rollback(repo, first.version), lambda: release_run(repo, third), lambda: compact(repo)):
        assert change().commit
        text = card.read_text()
        assert text.endswith("## Known faults\n\nSome.\n")
        assert "viewer: false" in text.split("---\n")[1]
        assert text.count(END) == text.count("## Releases") == text.count("## Limits") == 1
        assert '"revoked"' not in text


def test_revoked_samples_are_named_and_then_dropped(tmp_path: Path) -> None:
    repo = str(tmp_path / "released")
    release_run(repo, two_prompts_run(tmp_path, "one"))
    kept, revoked = sft_ids(repo)

    revoke(repo, [revoked], "wrong")

    assert [row["sample_id"] for row in config_rows(repo, "revoked")] == [revoked]
    compact(repo)
    assert sft_ids(repo) == [kept]
    assert config_rows(repo, "revoked") == []


@pytest.mark.slow
def test_ids_of_no_sample_are_refused_as_a_whole(tmp_path: Path) -> None:
    """Ids of all views count, also those that were revoked before; those of a release that was rolled back do not."""
    repo = str(tmp_path / "released")
    first = release_run(repo, two_prompts_run(tmp_path, "one"))
    hits, samples = sft_ids(repo), [row["sample_id"] for row in config_rows(repo, "rollouts")]
    release_run(repo, two_prompts_run(tmp_path, "two"), views=["rollouts"])
    gone = config_rows(repo, "rollouts")[-1]["sample_id"]
    assert gone not in samples
    rollback(repo, first.version)
    unknown = [f"{number:032x}" for number in range(12)]

    for ids, words in (
        (unknown[:1], f"1 of 1 ids are of no sample there, so nothing was revoked: {unknown[0]}; wanted ids from the columns"),
        ([gone, *samples], f"1 of {len(samples) + 1} ids are of no sample there, .* revoked: {gone};"),
        ([*unknown, *hits], f"12 of 14 ids .*: {', '.join(unknown[:10])} and 2 more;"),
    ):
        with pytest.raises(PublishError, match=words):
            revoke(repo, ids, "wrong")
    assert config_rows(repo, "revoked") == []
    assert revoke(repo, samples, "wrong").commit
    assert [row["sample_id"] for row in config_rows(repo, "revoked")] == samples
    with pytest.raises(PublishError, match=f"1 of 1 ids .*: {unknown[0]};"):
        revoke(repo, [unknown[0], *samples], "wrong")
    assert revoke(repo, samples, "wrong").commit is None


@pytest.mark.slow
def test_a_config_without_rows_is_no_config(tmp_path: Path) -> None:
    """A run without hits, rows that are all revoked and merged away, a split without rows: `datasets` could not load them."""
    from datasets import get_dataset_config_names, load_dataset

    repo, cache = str(tmp_path / "released"), str(tmp_path / "cache")
    no_hits = finished_run(tmp_path / "none", [("a", ["wrong", "wrong"], None)] * 2, key="none")
    release_run(repo, Path(no_hits.root), views=["sft", "rollouts"])
    assert get_dataset_config_names(repo) == ["rollouts"]
    assert load_dataset(repo, split="train", cache_dir=cache).num_rows == 4
    assert releases(repo).releases[0].rows == {"sft": 0, "rollouts": 4}
    held_out = two_prompts_run(tmp_path, "one", dataset={"test_share": 0.999})
    other = str(tmp_path / "other")
    release_run(other, held_out)
    assert list(load_dataset(other, "sft", cache_dir=cache)) == ["test"]
    revoke(other, [row["sample_id"] for row in config_rows(other, "rollouts", "test")], "wrong")
    compact(other)
    assert get_dataset_config_names(other) == ["prompts"]
    assert load_dataset(other, "prompts", split="test", cache_dir=cache).num_rows == 2
    assert release_run(other, held_out).commit is None


def test_sample_ids_are_read_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "ids.txt").write_text("a\n\n  b\n")

    assert read_sample_ids(str(tmp_path / "ids.txt")) == ["a", "b"]
