"""Front matter is merged key by key: a person's values stay, thresher's are updated."""

from typing import Any

import pytest

from thresher.releases.front_matter import Card, joined, merged, own, taken_apart

LAST = {"license": "mit", "tags": ["a", "b"], "language": ["en"], "configs": [{"config_name": "sft", "default": True}]}
NOW = {"license": "apache-2.0", "tags": ["a", "c"], "language": ["en"], "configs": [{"config_name": "sft", "default": True}]}
SFT, MINE = {"config_name": "sft", "data_files": "*"}, {"config_name": "mine"}


@pytest.mark.parametrize(
    ("key", "now", "theirs", "last", "expected"),
    [
        ("license", "b", "a", "a", "b"),
        ("license", "b", "theirs", "a", "theirs"),
        ("license", None, "a", "a", None),
        ("license", "b", None, "a", None),
        ("license", "b", None, None, "b"),
        ("license", "b", "theirs", None, "theirs"),
        ("tags", ["a", "c"], ["a", "b"], ["a", "b"], ["a", "c"]),
        ("tags", ["a", "c"], ["mine", "a"], ["a", "b"], ["a", "c", "mine"]),
        ("tags", ["a", "b"], ["b", "mine"], ["a", "b"], ["b", "mine"]),
        ("tags", ["a"], ["mine", "a"], ["a"], ["mine", "a"]),
        ("tags", ["a"], None, ["a"], None),
        ("language", ["en"], "de", None, ["en", "de"]),
        ("language", ["en"], "en", ["en"], "en"),
        ("tags", ["a"], {"odd": 1}, None, {"odd": 1}),
        ("configs", [SFT | {"default": True}], [MINE], None, [SFT | {"default": True}, MINE]),
        ("configs", [SFT | {"default": True}], [MINE | {"default": True}], None, [SFT, MINE | {"default": True}]),
        ("configs", [SFT | {"default": True}], [{"data_files": "*"}], None, [SFT, {"data_files": "*"}]),
        ("configs", [SFT], [{"config_name": "revoked"}, MINE, SFT], [SFT, {"config_name": "revoked"}], [SFT, MINE]),
        (
            "configs",
            [SFT | {"default": True}, {"config_name": "prompts"}],
            [SFT, {"config_name": "prompts", "default": True}],
            [SFT | {"default": True}, {"config_name": "prompts"}],
            [SFT, {"config_name": "prompts", "default": True}],
        ),
        ("dataset_info", [SFT], {"features": []}, None, [SFT, {"features": []}]),
        ("dataset_info", [SFT], [SFT | {"splits": []}, MINE], [SFT], [SFT, MINE]),
    ],
)
def test_each_key_is_merged_with_what_was_written_last(key: str, now: Any, theirs: Any, last: Any, expected: Any) -> None:
    def keys(value: Any) -> dict[str, Any]:
        return {"other": 1} | ({} if value is None else {key: value})

    assert merged(keys(now), keys(theirs), keys(last)) == keys(expected)


def test_a_card_without_front_matter_gets_all_keys() -> None:
    assert merged(NOW, {}, LAST) == NOW


@pytest.mark.parametrize(
    ("text", "matter", "body"),
    [
        ("", {}, ""),
        ("---\n---\n", {}, ""),
        ("---\na: 1\n---", {"a": 1}, ""),
        ("\n---\r\na: 1\r\n---\r\nText\r\n", {"a": 1}, "Text\r\n"),
        ("\ufeff---\t\na: 1\n...  \nText\n---\n", {"a": 1}, "Text\n---\n"),
        ("\ufeff# Text", {}, "# Text"),
        ("---\n# A rule above, and no keys\n", {}, "---\n# A rule above, and no keys\n"),
        ("Text\n---\na: 1\n---\n", {}, "Text\n---\na: 1\n---\n"),
    ],
)
def test_cards_are_taken_apart_as_people_write_them(text: str, matter: dict[str, Any], body: str) -> None:
    card = taken_apart(text)

    assert (card.matter, card.body) == (matter, body)


def test_lines_of_a_person_stay_with_their_comments() -> None:
    """Unless an alias would lose its anchor: then all keys are written new."""
    source = "# top\na: 'x' # why\n\n# of the list\nb:\n  - one # first\n  - {two: 2} # second\n# end\n"
    matter = {"a": "x", "b": ["one", "three", {"two": 2}], "c": 1}

    text = joined(matter, "Text", Card({"a": "x", "b": ["one", {"two": 2}]}, source, ""))

    changed = source.replace("first\n", "first\n  - three\n").replace("# end\n", "c: 1\n# end\n")
    assert text == f"---\n{changed}---\nText"
    anchored = Card({"a": 1, "b": 1}, "a: &x 1\nb: *x # gone\n", "")
    assert joined({"a": 2, "b": 1}, "", anchored) == "---\na: 2\nb: 1\n---\n"
    assert joined({"a": 1, "b": 2}, "", Card({"a": 1}, "{a: 1}\n", "")) == "---\na: 1\nb: 2\n---\n"


def test_keys_of_thresher_are_told_by_their_names_where_nothing_else_is_known() -> None:
    configs = [{"config_name": "sft"}, {"config_name": "revoked"}, MINE]

    assert own({"license": "mit", "viewer": False, "configs": configs}) == {"license": "mit", "configs": configs[:2]}
