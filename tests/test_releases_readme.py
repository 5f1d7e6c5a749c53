"""The README of a repository: what a person wrote is kept, through every change."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from helpers.cards import REFUSED, RUN_CARD, SHAPES, STATES, commit_card, manifest, matter
from helpers.hub_commits import content, put
from schemas.release import RepositoryManifest
from thresher.errors import PublishError
from thresher.releases.merge_card import BEGIN, merge, origin
from thresher.releases.places.folder import Folder
from thresher.releases.readme import END, generate, readme

CARDS = [generate(*state) for state in STATES]
"""The generated cards of a first release, a second one, a revocation, a rollback and a merge."""
MADE = [matter(card) for card in CARDS]


def test_text_below_the_generated_card_is_kept() -> None:
    made = "---\nlicense: mit\nconfigs: []\n---\n\n# Sums\n\nNew words.\n"
    manifest = RepositoryManifest(columns={}, releases=(), changes=("v2: added", "v1: added"))
    matter = "license: apache-2.0\nextra_gated_prompt: Say why.\n"
    old = f"---\n{matter}---\n# Sums\n\nOld words.\n\n{END}\n\n## Known faults\n\nNone.\n"

    text = readme(made, manifest, old)

    matter, body = text.split("---\n")[1:3]
    assert yaml.safe_load(matter) == {"license": "mit", "configs": [], "extra_gated_prompt": "Say why."}
    assert "New words." in body
    assert "Old words." not in body
    assert body.endswith(f"### Changes\n\n- v2: added\n- v1: added\n\n{END}\n## Known faults\n\nNone.\n")
    assert readme(made, manifest, text) == text
    theirs = "---\nviewer: false\n---\n# Mine\n\nBefore thresher came.\n"
    first = readme(made, manifest, theirs)
    assert first.endswith(f"{END}\n# Mine\n\nBefore thresher came.\n")
    assert yaml.safe_load(first.split("---\n")[1])["viewer"] is False
    unmarked = text.replace(END, "")
    assert readme(unmarked, manifest, unmarked).count("New words.") == 1


def edited(text: str) -> str:
    """As a person edits a card: above, between and below the marks, and in the front matter."""
    text = text.replace(BEGIN, f"Above.\n\n{BEGIN}", 1).replace("\n## Limits\n", "\nBetween.\n\n```\ncode\n```\n\n## Limits\n", 1)
    return text.replace("---\n", "---\nedited: yes # by hand\n", 1) + "\nBelow.\n"


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("when", ["before", "between"])
def test_what_a_person_wrote_stays_through_every_change(shape: str, when: str) -> None:
    """Their card is there before the first release, or takes the place of the card of one; it is edited, and then runs are
    released, samples revoked, releases rolled back and shards merged. What thresher wrote changes with each."""
    theirs, _, _ = SHAPES[shape]
    text = merge(CARDS[0], theirs, None if when == "before" or theirs is None else origin(theirs, CARDS[:1]))
    for number, card in enumerate(CARDS):
        if number:
            old = edited(text) if number == 1 else text
            text = merge(card, old, origin(old, CARDS[number - 1 :: -1]))
        assert_whole(text, shape, number)


def assert_whole(text: str, shape: str, number: int) -> None:
    """A card after so many changes, of which the first was followed by an edit, has what a person and thresher wrote, once."""
    _, keys, pieces = SHAPES[shape]
    if number:
        assert text.split(BEGIN, maxsplit=1)[0].endswith("---\nAbove.\n\n")
        assert [text.count(f"{word}.\n") for word in ("Above", "Between", "Below")] == [1, 1, 1]
        assert text.index(END) < text.index("Between.\n\n```\ncode\n```\n") < text.index("Below.")
        assert "edited: yes # by hand\n" in text
    assert [text.count(word) for word in (BEGIN, END, "New words.", "## Releases", "## Limits")] == [1] * 5
    assert not [piece for piece in pieces if text.count(piece) != 1]
    found, made = matter(text), MADE[number]
    assert found | keys == found
    for key in {"license", "pretty_name", "size_categories"} - set(keys):
        assert found[key] == made[key]
    assert set(found["tags"]) == {*made["tags"], *(["sums"] if "tags" in shape else [])}
    assert found["language"] == (["en", "de"] if "language" in shape else ["en"])
    own = ["mine"] if "config" in shape else []
    assert [entry["config_name"] for entry in found["configs"]] == [*(c["config_name"] for c in made["configs"]), *own]
    assert [entry["config_name"] for entry in found["dataset_info"]] == [entry["config_name"] for entry in found["configs"]]
    assert [c["config_name"] for c in found["configs"] if c.get("default")] == (own or ["sft"])


@pytest.mark.slow
@pytest.mark.parametrize("hub", ["lfs"], indirect=True)
def test_what_a_person_wrote_stays_on_the_hub_and_in_a_folder(hub: Any, tmp_path: Path) -> None:
    """The same, through the commits of both; a card that is refused leaves them as they were."""
    for number, (shape, (theirs, _, _)) in enumerate(SHAPES.items()):
        repo, folder = f"acme/r{number}", tmp_path / f"r{number}"
        put(hub, {} if theirs is None else {"README.md": theirs.encode()}, repo)
        folder.mkdir()
        if theirs is not None:
            (folder / "README.md").write_bytes(theirs.encode())
        for state in range(len(STATES)):
            assert hub.ask(card=[repo, state])[0] == 0
            commit_card(Folder(str(folder)), state)
            texts = [content(hub, "README.md", repo).decode(), (folder / "README.md").read_bytes().decode()]
            for text in texts:
                assert_whole(text, shape, state)
            if not state:
                put(hub, {"README.md": edited(texts[0]).encode()}, repo)
                (folder / "README.md").write_bytes(edited(texts[1]).encode())
    for number, (theirs, words) in enumerate(REFUSED.values()):
        repo, folder = f"acme/x{number}", tmp_path / f"x{number}"
        put(hub, {"README.md": theirs.encode()}, repo)
        folder.mkdir()
        (folder / "README.md").write_text(theirs)
        status, _, errors = hub.ask(card=[repo, 0])
        assert status == 99
        assert re.search(words, errors.replace("\\'", "'"))
        with pytest.raises(PublishError, match=words):
            commit_card(Folder(str(folder)), 0)
        assert content(hub, "README.md", repo) == (folder / "README.md").read_bytes() == theirs.encode()
        assert [path.name for path in folder.rglob("*") if path.is_file()] == ["README.md"]


@pytest.mark.parametrize("shape", REFUSED)
def test_a_card_that_would_lose_something_is_refused(shape: str) -> None:
    text, words = REFUSED[shape]
    with pytest.raises(PublishError, match=words):
        readme(RUN_CARD, manifest(1), text)
