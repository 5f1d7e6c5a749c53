"""Cards as people write them, and generated ones of repositories with some releases."""

from typing import Any

import yaml

from schemas.release import Release, RepositoryManifest, Shard
from thresher.releases.front_matter import taken_apart
from thresher.releases.places.place import Change, Place
from thresher.releases.readme import cards_of
from thresher.releases.repository import MANIFEST, dumped

RUN_CARD = """---
license: mit
language:
- en
pretty_name: Sums
size_categories:
- n<1K
tags:
- synthetic
- thresher
configs: []
dataset_info: []
---

# Sums

New words.

<!-- thresher: contents -->
<!-- thresher: end of contents -->

## Limits

None.
"""
OWN_CONFIG = "configs:\n- config_name: mine\n  default: true\n  data_files: mine.csv # by hand\n"
SHAPES: dict[str, tuple[str | None, dict[str, Any], list[str]]] = {
    "none": (None, {}, []),
    "empty": ("", {}, []),
    "text only": ("# Mine\n\nBefore it came.\n", {}, ["# Mine\n\nBefore it came.\n"]),
    "front matter only": ("---\nlicense: gpl\n---\n", {"license": "gpl"}, []),
    "no final newline": ("---\nlicense: gpl\n---", {"license": "gpl"}, []),
    "CRLF": ("---\r\nlicense: gpl\r\nviewer: false\r\n---\r\n# Mine\r\n\r\nText", {"license": "gpl"}, ["# Mine\r\n\r\nText"]),
    "BOM, spaces and dots": ("\ufeff---  \nlicense: gpl\n...\n# Mine\n", {"license": "gpl"}, ["# Mine\n"]),
    "config of its own": (
        f"---\n{OWN_CONFIG}dataset_info:\n  config_name: mine\n  splits: []\n---\n",
        {},
        ["mine.csv # by hand"],
    ),
    "licence, tags, language": (
        "---\n# Chosen by us\nlicense: gpl # ours\ntags: [sums, thresher]\nlanguage: de\ntask_categories: [other]\n---\n",
        {"license": "gpl", "task_categories": ["other"]},
        ["# Chosen by us\nlicense: gpl # ours\n"],
    ),
    "keys of its own": (
        "---\nextra_gated_prompt: |\n  # Say why.\n\n  Please.\nviewer: &no false # off\nother: *no\n---\n",
        {"extra_gated_prompt": "# Say why.\n\nPlease.\n", "viewer": False, "other": False},
        ["viewer: &no false # off\nother: *no\n"],
    ),
    "comments only": ("---\n# nothing yet\n{}\n---\nMine.\n", {}, ["# nothing yet\n", "Mine.\n"]),
    "huge": (
        "---\nlicense: gpl\n---\n" + "".join(f"{n} of mine{' and so on' * 50}\n" for n in range(10_000)),
        {"license": "gpl"},
        ["\n9999 of"],
    ),
}
"""A card before the first release; keys of its front matter and pieces of its text that stay."""
REFUSED = {
    "invalid YAML": ("---\nlicense: mit\n\ttags: [a\n---\nText\n", r"README\.md: line 3: .* not valid YAML"),
    "a list": ("---\n- license\n---\nText\n", "line 1: .* found a list"),
    "a scalar": ("---\n\nProse between rules.\n\n---\nText\n", "line 1: .* found plain text"),
    "a key twice": ("---\nlicense: mit\nextra:\n  a: 1\nlicense: gpl\n---\n", "line 5: .* the key 'license' occurs twice"),
    "an inner key twice": ("---\nextra:\n  a: 1\n  a: 2\n---\n", "line 4: .* the key 'a' occurs twice"),
    "no end": ("---\nlicense: mit\n\n# Mine\n", "line 1: its front matter has no last line"),
    "no such date": ("---\ndate: 2026-99-99\n---\n", "not valid YAML: month must be"),
    "configs that are none": ("---\nconfigs: {a: b}\n---\n", "`configs` of its front matter must be a list"),
    "a config of thresher's name": ("---\nconfigs:\n- {config_name: sft, data_files: a.csv}\n---\n", "entry 'sft' of its own"),
}
"""Cards that cannot be merged without losing something, and what is said of them."""


def manifest(releases: int, *, revoked: bool = False, merged: bool = False) -> RepositoryManifest:
    """A repository with so many releases of two rows each; `merged` into one."""
    parts = tuple(
        Release.model_validate(
            {"version": f"v1.{n}.0", "at": "2026-01-01", "run": f"r{n}", "dataset": "d", "name": "sums", "thresher_version": "0"}
            | {"figures": {}, "rows": {"sft": 2}, "views": {"sft": [shard("sft", n)]}}
        )
        for n in range(releases)
    )
    if merged:
        first = parts[0].model_copy(update={"merged": parts, "rows": {"sft": 2 * releases}})
        parts = (first,)
    changes = tuple(f"v1.{n}.0: added" for n in reversed(range(releases)))
    return RepositoryManifest(columns={}, releases=parts, revoked=(shard("revoked", 9),) if revoked else (), changes=changes)


def shard(view: str, number: int) -> Shard:
    return Shard(path=f"{view}/train/{number:016x}.parquet", rows=2, memory_bytes=10, file_bytes=20)


def matter(text: str) -> dict[str, Any]:
    """The front matter, which must be as the Hub reads it: one mapping, whose keys are there once."""
    assert text.startswith("---\n")
    source = text[4 : text.index("\n---\n")]
    found: dict[str, Any] = yaml.load(source, getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    assert found == taken_apart(text).matter
    return found


OTHER = RUN_CARD.replace("license: mit", "license: apache-2.0").replace("- synthetic", "- generated")
STATES = [
    (RUN_CARD, manifest(1)),
    (OTHER, manifest(2)),
    (OTHER, manifest(2, revoked=True)),
    (RUN_CARD, manifest(1)),
    (OTHER, manifest(2, merged=True)),
]
"""The card of the run and the contents after a first release, a second one, a revocation, a rollback and a merge."""


def commit_card(place: Place, state: int) -> None:
    """Commit the card of a state, as the commands do, without shards."""
    place.create(private=False, gated=None)
    place.mend()
    head, (text, content) = place.head(), STATES[state]
    files = cards_of(place, head, head, content, text) | {MANIFEST: dumped(content)}
    place.commit(Change(adds=dict(files)), f"v1.{state}.0: a state", parent=head, tag=None)
