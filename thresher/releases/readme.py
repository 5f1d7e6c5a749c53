"""The card of a repository: the card of the last run, with the contents and releases of the whole repository. Text that a person
wrote below the end mark stays, and so do keys of the front matter that are not thresher's."""

import re
from collections.abc import Mapping
from typing import Any

import yaml

from schemas.release import Release, RepositoryManifest, Shard
from thresher.auditing.show import number, percent
from thresher.dataset import card as cards
from thresher.dataset import views
from thresher.dataset.card import CONTENTS, CONTENTS_END, ViewSize

BEGIN, END = "<!-- thresher: written anew with every release -->", "<!-- thresher: end; what stands below is yours -->"
RELEASES = "## Releases"
_MATTER = re.compile(r"\A---\n(.*?)\n---\n", re.DOTALL)


def readme(text: str, manifest: RepositoryManifest, old: str | None, *, repo: str = "ORG/NAME", lists_files: bool = False) -> str:
    """Return a card with the contents and releases of `manifest`, and with what a person wrote into the `old` card. `text` is the
    card of a run, or an earlier result of this function."""
    matter, body = _split(text)
    old_matter, old_body = _split(old or "")
    if END in body:
        body = body[: body.rindex(RELEASES, 0, body.index(END))]
    body = body.removeprefix(BEGIN).strip()
    unmarked = "" if BEGIN in old_body or old == text else old_body
    below = old_body.split(END, 1)[1] if END in old_body else unmarked
    generated = {key: value for key, value in matter.items() if key in cards.FRONT_MATTER}
    matter = generated | {key: value for key, value in old_matter.items() if key not in generated}
    view_sizes = sizes(manifest)
    if view_sizes:
        matter |= cards.configs(view_sizes, manifest.prompt_format, _files(manifest) if lists_files else None)
        matter["size_categories"] = [cards.size_category(view_sizes)]
    if CONTENTS in body and CONTENTS_END in body:
        before, rest = body.split(CONTENTS, 1)
        body = before + cards.contents(view_sizes, len(_parts(manifest)), repo) + rest.split(CONTENTS_END, 1)[1]
    return _joined(matter, f"{BEGIN}\n{body}\n\n{_releases(manifest)}\n\n{END}\n{below.lstrip()}")


def sizes(manifest: RepositoryManifest) -> dict[str, dict[str, ViewSize]]:
    """Return the size of each split of each view, of all releases together. A shard of two releases counts once."""
    total: dict[str, dict[str, ViewSize]] = {}
    for view, splits in _shards(manifest).items():
        for split, shards in splits.items():
            for shard in shards.values():
                before = total.setdefault(view, {}).get(split, ViewSize(0, 0, 0))
                total[view][split] = before + ViewSize(shard.rows, shard.memory_bytes, shard.file_bytes)
    return total


# -- inside --------------------------------------------------------------------------------------------------------------


def _shards(manifest: RepositoryManifest) -> dict[str, dict[str, dict[str, Shard]]]:
    """The shards by view, split (train first) and path, in the order of the releases."""
    by_view: dict[str, dict[str, dict[str, Shard]]] = {}
    for view in views.COLUMNS:
        released = [shard for release in manifest.releases for shard in release.views.get(view, ())]
        shards = list(manifest.revoked) if view == "revoked" else released
        for split in ("train", "test"):
            in_split = {shard.path: shard for shard in shards if shard.path.split("/")[1] == split}
            if in_split:
                by_view.setdefault(view, {})[split] = in_split
    return by_view


def _files(manifest: RepositoryManifest) -> dict[str, dict[str, list[str]]]:
    return {view: {split: list(shards) for split, shards in splits.items()} for view, splits in _shards(manifest).items()}


def _parts(manifest: RepositoryManifest) -> list[Release]:
    """The releases, with merged ones in the place of the release that they were merged into."""
    return [part for release in manifest.releases for part in release.merged or (release,)]


def _releases(manifest: RepositoryManifest) -> str:
    names = ("version", "published", "run", "rows", "samples", "pass rate (95 %)", "effective", "near misses", "tokens/hit")
    lines = ["| " + " | ".join(names) + " |", "|---|---|---|---:|---:|---:|---:|---:|---:|"]
    lines += ["| " + " | ".join(_row(release)) + " |" for release in reversed(_parts(manifest))]
    changes = "\n".join(f"- {change}" for change in manifest.changes)
    return "\n".join([RELEASES, "", *lines, "", "### Changes", "", changes])


def _row(release: Release) -> list[str]:
    figures: Mapping[str, float | None] = release.figures

    def shown(name: str, form: str) -> str:
        value = figures.get(name)
        return "" if value is None else format(value, form)

    rate, low, high = (figures.get(name) for name in ("pass_rate", "pass_rate_low", "pass_rate_high"))
    rates = "" if rate is None else percent(rate)
    if low is not None and high is not None:
        rates += f" [{100 * low:.1f}, {100 * high:.1f}]"
    near, hits, tokens = figures.get("near_miss_share"), figures.get("hits"), figures.get("completion_tokens")
    return [
        release.version,
        release.at[:10],
        release.name + (" (forced)" if release.forced else ""),
        number(next(iter(release.rows.values()), 0)),
        shown("samples", ",.0f").replace(",", "\u202f"),
        rates,
        shown("effective_solutions", ".2f"),
        "" if near is None else percent(near),
        "" if not hits or not tokens else f"{tokens / hits:.0f}",
    ]


def _split(text: str) -> tuple[dict[str, Any], str]:
    """The front matter and the body of a card."""
    matter = _MATTER.match(text)
    return (yaml.safe_load(matter[1]) or {}, text[matter.end() :]) if matter else ({}, text)


def _joined(matter: Mapping[str, Any], body: str) -> str:
    return f"---\n{yaml.safe_dump(dict(matter), sort_keys=False, allow_unicode=True, width=120)}---\n{body}"
