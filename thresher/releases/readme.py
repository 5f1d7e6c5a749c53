"""The card of a repository: the card of the last run, with the contents and releases of the whole repository, and with what a
person wrote (thresher.releases.merge_card)."""

from collections.abc import Mapping

from schemas.release import Release, RepositoryManifest, Shard
from thresher.auditing.markdown import inline
from thresher.auditing.show import number, percent
from thresher.dataset import card as cards
from thresher.dataset import views
from thresher.dataset.card import CONTENTS, CONTENTS_END, ViewSize
from thresher.releases import front_matter
from thresher.releases.front_matter import joined, taken_apart
from thresher.releases.merge_card import BEGIN, CARD, END, README, generated_part, is_cut, merge, origin, with_id
from thresher.releases.places.place import Place

__all__ = ["BEGIN", "END", "cards_of", "generate", "mended_card", "readme", "sizes", "stop_at_unreadable_card"]

RELEASES = "## Releases"


def readme(
    text: str,
    manifest: RepositoryManifest,
    old: str | None,
    last: str | None = None,
    *,
    repo: str = "ORG/NAME",
    lists_files: bool = False,
) -> str:
    """Return a card with the contents and releases of `manifest`, and with what a person wrote into the `old` card, made from
    the generated card `last`. `text` is the card of a run, or an earlier result. Raises PublishError on an old card that cannot
    be merged."""
    return merge(generate(text, manifest, repo=repo, lists_files=lists_files), old, last, name=f"{repo}/{README}")


def generate(text: str, manifest: RepositoryManifest, *, repo: str = "ORG/NAME", lists_files: bool = False) -> str:
    """Return a card without a person's text, with the contents and releases of `manifest`."""
    card = taken_apart(text)
    body = generated_part(card.body)
    if END in card.body and RELEASES in body:
        body = body[: body.rindex(RELEASES)]
    body = body.strip()
    view_sizes = sizes(manifest)
    matter = front_matter.own(card.matter)
    if manifest.releases:
        matter |= cards.configs(view_sizes, manifest.prompt_format, _files(manifest) if lists_files else None)
        matter["size_categories"] = [cards.size_category(view_sizes)]
    if CONTENTS in body and CONTENTS_END in body:
        before, rest = body.split(CONTENTS, 1)
        body = before + cards.contents(view_sizes, len(_parts(manifest)), repo) + rest.split(CONTENTS_END, 1)[1]
    keys = joined(matter, "")
    return keys + with_id(f"{body}\n\n{_releases(manifest)}", keys)


def cards_of(place: Place, revision: str, head: str, manifest: RepositoryManifest, text: str | None = None) -> dict[str, bytes]:
    """Return the files of a commit onto `head` that hold its card: of a run, the `text`, or that of a revision, with the contents
    of a manifest and what a person wrote. Raises PublishError if the present card cannot be merged."""
    if text is None:
        text = place.text(revision, CARD) or place.text(revision, README) or ""
    old = place.readme(head)
    last = origin(old, place.cards(head))
    merged = readme(text, manifest, old, last, repo=place.name, lists_files=place.lists_files)
    generated = generate(text, manifest, repo=place.name, lists_files=place.lists_files)
    return {CARD: generated.encode(), README: merged.encode()}


def mended_card(place: Place, head: str, manifest: RepositoryManifest) -> dict[str, bytes]:
    """Return the card of `head` if the present one is missing, cut off, or does not name the files of the releases; else
    nothing."""
    files = cards_of(place, head, head, manifest)
    present = taken_apart(place.readme(head) or "")
    whole = present.matter.get("configs") == taken_apart(files[README].decode()).matter.get("configs")
    return {} if whole and not is_cut(present.body) else {README: files[README]}


def stop_at_unreadable_card(place: Place) -> None:
    """Raise PublishError if the present card cannot be merged, before anything is sent."""
    taken_apart(place.readme(place.head()) or "", f"{place.name}/{README}")


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
    """The shards by view, split (train first) and path, in the order of the releases; `datasets` cannot load a split without
    rows, so shards without rows are not named."""
    by_view: dict[str, dict[str, dict[str, Shard]]] = {}
    for view in views.COLUMNS:
        released = [shard for release in manifest.releases for shard in release.views.get(view, ())]
        shards = list(manifest.revoked) if view == "revoked" else released
        for split in ("train", "test"):
            in_split = {shard.path: shard for shard in shards if shard.rows and shard.path.split("/")[1] == split}
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
    lines += ["| " + " | ".join(map(inline, _row(release))) + " |" for release in reversed(_parts(manifest))]
    changes = "\n".join(f"- {inline(change)}" for change in manifest.changes)
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
