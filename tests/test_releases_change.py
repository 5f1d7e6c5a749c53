"""Changes of a repository: rolled back, revoked, compacted."""

from pathlib import Path

import pytest

from helpers.releases import config_rows, release_run, sft_ids
from helpers.runs import two_prompts_run
from thresher.releases.change import read_sample_ids, revoke, rollback
from thresher.releases.compact import compact
from thresher.releases.places.folder import Folder
from thresher.releases.places.place import Change
from thresher.releases.readme import END


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
    assert f'load_dataset("{repo}", "revoked", split="train")' in card.read_text()
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


def test_a_sample_id_is_not_looked_up(tmp_path: Path) -> None:
    """It may be of a release that was rolled back: it is listed, and no row is left out."""
    repo = str(tmp_path / "released")
    release_run(repo, two_prompts_run(tmp_path, "one"))
    before = sft_ids(repo)

    revoke(repo, ["0" * 32], "wrong")

    assert sft_ids(repo) == before
    assert [row["sample_id"] for row in config_rows(repo, "revoked")] == ["0" * 32]


def test_sample_ids_are_read_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "ids.txt").write_text("a\n\n  b\n")

    assert read_sample_ids(str(tmp_path / "ids.txt")) == ["a", "b"]
