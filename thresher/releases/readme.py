"""The card of a repository: that of the last run, with the contents and releases of the whole. What a person wrote below the end
mark, or into the front matter under keys that are not thresher's, stays."""

import re
from collections.abc import Mapping
from typing import Any

import yaml

from schemas.release import Release, RepositoryManifest
from thresher.audit.show import number, percent
from thresher.dataset import card as cards
from thresher.dataset import views
from thresher.dataset.card import CONTENTS, CONTENTS_END, ViewSize

BEGIN, END = "<!-- thresher: written anew with every release -->", "<!-- thresher: end; what stands below is yours -->"
RELEASES = "## Releases"
_MATTER = re.compile(r"\A---\n(.*?)\n---\n", re.DOTALL)


def readme(made: str, manifest: RepositoryManifest, old: str | None, *, repo: str = "ORG/NAME", lists_files: bool = False) -> str:
    """A card with the contents and releases of `manifest`, and what a person wrote into the `old` one. `made` is the card of a
    run, or one that this function made before."""
    matter, body = _parted(made)
    theirs, old_body = _parted(old or "")
    if END in body:
        body = body[: body.rindex(RELEASES, 0, body.index(END))]
    body = body.removeprefix(BEGIN).strip()
    all_theirs = "" if BEGIN in old_body or old == made else old_body
    below = old_body.split(END, 1)[1] if END in old_body else all_theirs
    ours = {key: value for key, value in matter.items() if key in cards.FRONT_MATTER}
    matter = ours | {key: value for key, value in theirs.items() if key not in ours}
    known = sizes(manifest)
    if known:
        matter |= cards.configs(known, manifest.prompt_format, _files(manifest) if lists_files else None)
        matter["size_categories"] = [cards.size_category(known)]
    if CONTENTS in body and CONTENTS_END in body:
        before, rest = body.split(CONTENTS, 1)
        body = before + cards.contents(known, len(_every(manifest)), repo) + rest.split(CONTENTS_END, 1)[1]
    return _whole(matter, f"{BEGIN}\n{body}\n\n{_releases(manifest)}\n\n{END}\n{below.lstrip()}")


def sizes(manifest: RepositoryManifest) -> dict[str, dict[str, ViewSize]]:
    """How large each split of each view is, all releases together; a shard that two of them brought is there once."""
    found: dict[str, dict[str, ViewSize]] = {}
    for view, splits in _shards(manifest).items():
        for split, shards in splits.items():
            for shard in shards.values():
                so_far = found.setdefault(view, {}).get(split, ViewSize(0, 0, 0))
                found[view][split] = so_far + ViewSize(shard.rows, shard.memory_bytes, shard.file_bytes)
    return found


# -- inside --------------------------------------------------------------------------------------------------------------


def _shards(manifest: RepositoryManifest) -> dict[str, dict[str, dict[str, Any]]]:
    """The shards by view, split (train first) and path, in the order of the releases."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for view in views.COLUMNS:
        every = [shard for release in manifest.releases for shard in release.views.get(view, ())]
        every = list(manifest.revoked) if view == "revoked" else every
        for split in ("train", "test"):
            mine = {shard.path: shard for shard in every if shard.path.split("/")[1] == split}
            if mine:
                found.setdefault(view, {})[split] = mine
    return found


def _files(manifest: RepositoryManifest) -> dict[str, dict[str, list[str]]]:
    return {view: {split: list(shards) for split, shards in splits.items()} for view, splits in _shards(manifest).items()}


def _every(manifest: RepositoryManifest) -> list[Release]:
    """The releases, those that were merged by themselves."""
    return [merged for one in manifest.releases for merged in (one.merged or (one,))]


def _releases(manifest: RepositoryManifest) -> str:
    names = ("version", "published", "run", "rows", "samples", "pass rate (95 %)", "effective", "near misses", "tokens/hit")
    lines = ["| " + " | ".join(names) + " |", "|---|---|---|---:|---:|---:|---:|---:|---:|"]
    lines += ["| " + " | ".join(_row(one)) + " |" for one in reversed(_every(manifest))]
    changes = "\n".join(f"- {change}" for change in manifest.changes)
    return "\n".join([RELEASES, "", *lines, "", "### Changes", "", changes])


def _row(one: Release) -> list[str]:
    told: Mapping[str, float | None] = one.figures

    def shown(name: str, form: str) -> str:
        value = told.get(name)
        return "" if value is None else format(value, form)

    rate, low, high = (told.get(name) for name in ("pass_rate", "pass_rate_low", "pass_rate_high"))
    rates = "" if rate is None else percent(rate)
    if low is not None and high is not None:
        rates += f" [{100 * low:.1f}, {100 * high:.1f}]"
    near, hits, tokens = told.get("near_miss_share"), told.get("hits"), told.get("completion_tokens")
    return [
        one.version,
        one.at[:10],
        one.name + (" (forced)" if one.forced else ""),
        number(next(iter(one.rows.values()), 0)),
        shown("samples", ",.0f").replace(",", "\u202f"),
        rates,
        shown("effective_solutions", ".2f"),
        "" if near is None else percent(near),
        "" if not hits or not tokens else f"{tokens / hits:.0f}",
    ]


def _parted(text: str) -> tuple[dict[str, Any], str]:
    """Front matter and body."""
    found = _MATTER.match(text)
    return (yaml.safe_load(found[1]) or {}, text[found.end() :]) if found else ({}, text)


def _whole(matter: Mapping[str, Any], body: str) -> str:
    return f"---\n{yaml.safe_dump(dict(matter), sort_keys=False, allow_unicode=True, width=120)}---\n{body}"
