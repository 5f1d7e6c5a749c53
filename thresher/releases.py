"""Releases on the Hub: a run's dataset is appended to a dataset repository in one commit, or not at all.

    1. every shard has the hash of its content for a name, and is sent ahead (`preupload_lfs_files`); nobody sees it yet 2. the
    head of the branch is read, and the manifest as it is there; what is there already is not published again 3. shards, card,
    manifest and the index of what was released go into one commit whose parent is that head; if the head has moved, from 2. on
    again 4. the commit gets its tag

Whatever is cut off, the same call goes on: shards that were sent are not sent again, a commit whose answer was lost is found in
the manifest. What somebody else put among the shards stops the release. Tokens are those of huggingface_hub's login or of its
environment variables, and are never read here.
"""

import hashlib
import json
import random
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from filters import near_duplicate
from schemas.manifest import Entry, RunManifest
from schemas.recipe import Recipe
from schemas.release import FORMAT, Release, RepositoryManifest, Shard
from thresher import __version__, views
from thresher.audit.stats import Audit, audit
from thresher.card import ViewSize, card
from thresher.errors import PublishError
from thresher.store import Store

MANIFEST, INDEX = "thresher/manifest.json", "index"
BEGIN, END = "<!-- thresher: written anew with every release -->", "<!-- thresher: end; what stands below is yours -->"
TRIES, LONGEST_WAIT_S = 12, 60.0
AGAIN = (409, 412, 429, 500, 502, 503, 504)
"""Answers after which it is tried again: the head has moved, too many requests, or the server's own trouble."""


@dataclass(frozen=True)
class Limits:
    """Gates: a release that does not keep to these is refused."""

    undecided: float = 0.1
    """Most of the samples, as a share, that filters could not judge."""
    pass_rate_drop: float = 0.3
    """Most that the pass rate may have fallen since the last release, as a share of it."""
    diversity_drop: float = 0.3
    """The same of the effective number of solutions."""


@dataclass(frozen=True)
class Published:
    """What came of a release."""

    repo: str
    version: str
    commit: str | None
    """None where it was there already."""
    rows: dict[str, int]
    """Rows of each view, of this run."""
    request: str | None = None
    """Address of the pull request, with create_pr."""


def publish(
    run: str | Path,
    repo: str,
    *,
    private: bool = False,
    create_pr: bool = False,
    force: str | None = None,
    limits: Limits | None = None,
) -> Published:
    """Append the dataset of a finished run to a repository. Raises PublishError, and then nothing has changed."""
    store = Store(run)
    manifest, entry, found = _finished(store)
    refused = gates(found, limits or Limits())
    with _explained(repo):
        from huggingface_hub import CommitOperationAdd, HfApi

        api = HfApi(library_name="thresher", library_version=__version__)
        _again(partial(api.create_repo, repo, repo_type="dataset", private=private or None, exist_ok=True))
        files = _files(store, entry)
        adds = [CommitOperationAdd(shard.path, store.path(f"dataset/{name}")) for name, shard in files.items()]
        before = _again(partial(_read, api, repo, "main"))
        _stop_where_refused(refused + against(found, before, limits or Limits()), force)
        known = {shard.path for release in before.releases for shards in release.views.values() for shard in shards}
        for add in adds:
            if add.path_in_repo not in known:
                _again(partial(api.preupload_lfs_files, repo, [add], repo_type="dataset", free_memory=False))

        def attempt() -> Published:
            head = str(api.dataset_info(repo).sha)
            there = _read(api, repo, head)
            mine = [one for one in there.releases if one.run == manifest.sampling_key]
            if mine and mine[0].dataset == entry.key:
                _tag(api, repo, mine[0].version, None)
                return Published(repo, mine[0].version, None, _rows(mine[0]))
            _stop_at_strangers(api, repo, head, there)
            columns = _columns(manifest)
            _stop_at_drift(repo, there, columns)
            test_share = float(manifest.recipe["dataset"]["test_share"])
            if there.releases and there.test_share != test_share:
                raise PublishError(
                    f"{repo}: holds out {there.test_share:g} of the prompts, the run {test_share:g}; prompts would change "
                    "sides, so set dataset.test_share to what it was and run again, or publish to another repository"
                )
            version = _next_version(there, {ref.name for ref in api.list_repo_refs(repo, repo_type="dataset").tags})
            given = _stop_where_refused(refused + against(found, there, limits or Limits()), force)
            release = Release(
                version=version,
                run=manifest.sampling_key,
                dataset=entry.key,
                name=manifest.name,
                thresher_version=__version__,
                figures=_figures(found),
                forced=given,
                views=_by_view(files.values()),
            )
            left = tuple(one for one in there.releases if one.run != release.run)
            did = f"{'replaced' if mine else 'added'} {manifest.name}: " + ", ".join(
                f"{rows} {view}" for view, rows in _rows(release).items()
            )
            then = RepositoryManifest(
                columns=there.columns | columns,
                test_share=test_share,
                releases=(*left, release),
                changes=(f"{version}: {did}" + (f" (forced: {'; '.join(given)})" if given else ""), *there.changes),
            )
            old = api_text(api, repo, head, "README.md")
            text = readme(card(manifest, found, _sizes(then)), then, old)
            operations = _operations(adds, there, then, text) + _index_operations(api, repo, head, manifest)
            made = api.create_commit(
                repo,
                operations,
                repo_type="dataset",
                commit_message=f"{version}: {did}",
                parent_commit=head,
                create_pr=create_pr,
            )
            if create_pr:
                return Published(repo, version, made.oid, _rows(release), made.pr_url)
            _tag(api, repo, version, made.oid)
            return Published(repo, version, made.oid, _rows(release))

        done: Published = _again(attempt)
        return done


def releases(repo: str) -> RepositoryManifest:
    """What a repository holds. Raises PublishError where there is none."""
    with _explained(repo):
        from huggingface_hub import HfApi

        return _read(HfApi(library_name="thresher", library_version=__version__), repo, "main")


def rollback(repo: str, tag: str) -> str | None:
    """Make the branch hold what it held at a tag, in one commit that moves no data; returns the commit, None where it does."""
    with _explained(repo):
        from huggingface_hub import CommitOperationAdd, CommitOperationCopy, CommitOperationDelete, HfApi

        api = HfApi(library_name="thresher", library_version=__version__)

        def attempt() -> str | None:
            head = str(api.dataset_info(repo).sha)
            tags = {ref.name: ref.target_commit for ref in api.list_repo_refs(repo, repo_type="dataset").tags}
            if tag not in tags:
                raise PublishError(f"{repo}: no release {tag!r}; there are {', '.join(sorted(tags)) or 'none'}")
            there, then = _read(api, repo, head), _read(api, repo, tags[tag])
            _stop_at_strangers(api, repo, head, there)
            if there.releases == then.releases:
                return None
            now, wanted = _paths(there), _paths(then)
            back = then.model_copy(update={"changes": (f"rolled back to {tag}", *there.changes)})
            text = _with_changes(api_text(api, repo, tags[tag], "README.md") or "", back)
            operations: list[Any] = [CommitOperationDelete(path) for path in sorted(now - wanted)]
            operations += [CommitOperationCopy(path, path, src_revision=tag) for path in sorted(wanted - now)]
            operations += [CommitOperationAdd(MANIFEST, _dumped(back)), CommitOperationAdd("README.md", text.encode())]
            message = f"Roll back to {tag}"
            made = api.create_commit(repo, operations, repo_type="dataset", commit_message=message, parent_commit=head)
            return str(made.oid)

        done: str | None = _again(attempt)
        return done


# -- gates ---------------------------------------------------------------------------------------------------------------


def gates(found: Audit, limits: Limits) -> list[str]:
    """Why a run must not be released, by its own figures."""
    reasons = [*found.problems, *found.calibration_faults, *found.alarms]
    undecided = found.outcomes.get("undecided", 0) / max(1, found.samples)
    if undecided > limits.undecided:
        reasons.append(f"{undecided:.1%} of the samples are undecided, more than {limits.undecided:.1%}")
    return reasons


def against(found: Audit, there: RepositoryManifest, limits: Limits) -> list[str]:
    """Why a run must not be released, by the figures of the last release of the same recipe."""
    last = next((one for one in reversed(there.releases) if one.name == found.name), None)
    if last is None:
        return []
    now, reasons = _figures(found), []
    for name, drop in (("pass_rate", limits.pass_rate_drop), ("effective_solutions", limits.diversity_drop)):
        before, after = last.figures.get(name), now[name]
        if before and after is not None and after < before * (1 - drop):
            reasons.append(f"{name} fell from {before:.4g} ({last.version}) to {after:.4g}, by more than {drop:.0%}")
    return reasons


def _figures(found: Audit) -> dict[str, float | None]:
    diversity = found.diversity[-1] if found.diversity else None
    return {
        "pass_rate": found.total.pass_rate,
        "undecided": found.outcomes.get("undecided", 0) / max(1, found.samples),
        "hits_per_prompt": diversity.hits_per_prompt if diversity else None,
        "effective_solutions": diversity.effective_solutions if diversity else None,
    }


def _stop_where_refused(reasons: list[str], force: str | None) -> tuple[str, ...]:
    if reasons and force is None:
        raise PublishError(
            "\n  ".join(["not released; --force REASON does it all the same and says so on the card:", *dict.fromkeys(reasons)])
        )
    return (f"reason given: {force}", *dict.fromkeys(reasons)) if reasons and force is not None else ()


def _stop_at_strangers(api: Any, repo: str, head: str, there: RepositoryManifest) -> None:
    """Somebody else's Parquet files would become part of the dataset, and missing ones are missed."""
    from huggingface_hub import RepoFile

    listed = api.list_repo_tree(repo, repo_type="dataset", revision=head, recursive=True)
    parquet = {one.path for one in listed if isinstance(one, RepoFile) and one.path.endswith(".parquet")}
    found, known = {path for path in parquet if not path.startswith(f"{INDEX}/")}, _paths(there)
    if strange := sorted(found - known):
        raise PublishError(
            f"{repo}: holds {strange[0]} and {len(strange) - 1} more that no release brought; remove them, or publish "
            "to a repository of its own"
        )
    if lost := sorted(known - found):
        raise PublishError(
            f"{repo}: {lost[0]} and {len(lost) - 1} more are gone that releases brought; bring them back with "
            f"thresher rollback {repo} --to TAG"
        )


def _stop_at_drift(repo: str, there: RepositoryManifest, columns: Mapping[str, tuple[tuple[str, str], ...]]) -> None:
    """Columns and their order never change between releases."""
    for view, now in columns.items():
        before = there.columns.get(view, now)
        if before == now:
            continue
        lines = [f"- {name}: {kind}" for name, kind in before if (name, kind) not in now]
        lines += [f"+ {name}: {kind}" for name, kind in now if (name, kind) not in before]
        raise PublishError(
            "\n  ".join(
                [
                    f"{repo}: the columns of {view} are not those of the releases before; publish to another repository:",
                    *(lines or ["the same columns in another order"]),
                ]
            )
        )


# -- what is published ---------------------------------------------------------------------------------------------------


def _finished(store: Store) -> tuple[RunManifest, Entry, Audit]:
    from thresher.publish import dataset_finished

    found = audit(store)
    manifest, entry = store.manifest(), store.entry("dataset")
    if manifest is None or entry is None or not dataset_finished(store):
        raise PublishError(f"{store.root}: has no finished dataset; finish the run first: thresher run (or thresher filter)")
    if not store.local:
        raise PublishError(f"{store.root}: is not on a local disk; copy RUN here to publish it")
    return manifest, entry, found


def _files(store: Store, entry: Entry) -> dict[str, Shard]:
    """Each file of the dataset, and what it is in the repository."""
    found = {}
    for name, told in entry.facts["files"].items():
        view, split, _ = name.split("/")
        with open(store.path(f"dataset/{name}"), "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()[:16]
        path = f"{view}/{split}/{digest}.parquet"
        found[name] = Shard(path=path, rows=told["rows"], memory_bytes=told["memory_bytes"], file_bytes=told["bytes"])
    return found


def _by_view(shards: Any) -> dict[str, tuple[Shard, ...]]:
    found: dict[str, tuple[Shard, ...]] = {}
    for shard in shards:
        view = shard.path.split("/")[0]
        found[view] = (*found.get(view, ()), shard)
    return found


def _rows(release: Release) -> dict[str, int]:
    return {view: sum(shard.rows for shard in shards) for view, shards in release.views.items()}


def _paths(manifest: RepositoryManifest) -> set[str]:
    return {shard.path for release in manifest.releases for shards in release.views.values() for shard in shards}


def _sizes(manifest: RepositoryManifest) -> dict[str, dict[str, ViewSize]]:
    """How large each split of each view is, all releases together; a shard that two of them brought is there once."""
    found: dict[str, dict[str, ViewSize]] = {}
    for view in views.COLUMNS:
        shards = {shard.path: shard for release in manifest.releases for shard in release.views.get(view, ())}
        for path, shard in sorted(shards.items(), key=lambda item: "/test/" in item[0]):
            splits, split = found.setdefault(view, {}), path.split("/")[1]
            splits[split] = splits.get(split, ViewSize(0, 0, 0)) + ViewSize(shard.rows, shard.memory_bytes, shard.file_bytes)
    return found


def _columns(manifest: RunManifest) -> dict[str, tuple[tuple[str, str], ...]]:
    wanted = manifest.recipe["dataset"]["views"]
    schemas = {view: views.schema(view, manifest.model["prompt_format"]) for view in wanted}
    return {view: tuple((field.name, str(field.type)) for field in schema) for view, schema in schemas.items()}


def _operations(adds: list[Any], there: RepositoryManifest, then: RepositoryManifest, text: str) -> list[Any]:
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    known, wanted = _paths(there), _paths(then)
    for add in adds:
        add._is_committed = False  # an attempt that failed marked it
    operations: list[Any] = [add for add in adds if add.path_in_repo not in known]
    operations += [CommitOperationDelete(path) for path in sorted(known - wanted)]
    operations += [CommitOperationAdd(MANIFEST, _dumped(then)), CommitOperationAdd("README.md", text.encode())]
    return operations


def _index_operations(api: Any, repo: str, head: str, manifest: RunManifest) -> list[Any]:
    """The index of what was released, where the recipe names one: its files are never changed, so only new ones are sent."""
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, RepoFile

    recipe = Recipe.model_validate(manifest.recipe)
    if recipe.dedupe is None or recipe.dedupe.released is None:
        return []
    index = near_duplicate.open_index(recipe.dedupe, Path(manifest.base))
    wanted = {f"{INDEX}/{file.relative_to(index.folder)}": file for file in index.files()}
    listed = api.list_repo_tree(repo, repo_type="dataset", revision=head, recursive=True)
    there = {one.path for one in listed if isinstance(one, RepoFile) and one.path.startswith(f"{INDEX}/")}
    new = (set(wanted) - there) | {f"{INDEX}/index.json"}
    return [
        *(CommitOperationAdd(path, wanted[path]) for path in sorted(new)),
        *(CommitOperationDelete(path) for path in sorted(there - set(wanted))),
    ]


def _next_version(there: RepositoryManifest, tags: set[str]) -> str:
    day = datetime.now(UTC).strftime("v%Y.%m.%d")
    taken = tags | {one.version for one in there.releases}
    return next(version for number in range(1, 10_000) if (version := f"{day}.{number}") not in taken)


# -- the card ------------------------------------------------------------------------------------------------------------

_MATTER = re.compile(r"\A---\n(.*?)\n---\n", re.DOTALL)
_CHANGES = "## Releases"


def readme(made: str, manifest: RepositoryManifest, old: str | None) -> str:
    """The card of a repository: the one of the last run, with all releases listed. What a person wrote below the end mark, or
    into the front matter under keys that are not thresher's, stays."""
    matter, body = _parted(made)
    theirs, old_body = _parted(old or "")
    mine = yaml.safe_load(matter)
    kept = {key: value for key, value in (yaml.safe_load(theirs) or {}).items() if key not in mine} if theirs else {}
    below = old_body.split(END, 1)[1] if END in old_body else ""
    extra = yaml.safe_dump(kept, sort_keys=False, allow_unicode=True) if kept else ""
    whole = f"---\n{matter}\n{extra}---\n{BEGIN}\n{body.strip()}\n\n{_CHANGES}\n\n{END}\n{below.lstrip()}"
    return _with_changes(whole, manifest)


def _with_changes(text: str, manifest: RepositoryManifest) -> str:
    start, end = text.index(_CHANGES), text.index(END)
    lines = "\n".join(f"- {change}" for change in manifest.changes)
    return f"{text[:start]}{_CHANGES}\n\n{lines}\n\n{text[end:]}"


def _parted(text: str) -> tuple[str, str]:
    found = _MATTER.match(text)
    return (found[1], text[found.end() :]) if found else ("", text)


# -- the Hub -------------------------------------------------------------------------------------------------------------


def api_text(api: Any, repo: str, revision: str, path: str) -> str | None:
    """A small file of the repository; None where there is none."""
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    try:
        return Path(api.hf_hub_download(repo, path, repo_type="dataset", revision=revision)).read_text(encoding="utf-8")
    except LocalEntryNotFoundError as error:  # a kind of EntryNotFoundError, but it says that the Hub gave no answer
        raise ConnectionError(f"{path} cannot be read") from error
    except EntryNotFoundError:
        return None


def _read(api: Any, repo: str, revision: str) -> RepositoryManifest:
    text = api_text(api, repo, revision, MANIFEST)
    if text is None:
        return RepositoryManifest(columns={}, releases=())
    given = json.loads(text)
    if given.get("format") != FORMAT:
        raise PublishError(
            f"{repo}: {MANIFEST} has format {given.get('format')}, this thresher ({__version__}) reads {FORMAT}; use a newer one"
        )
    return RepositoryManifest.model_validate(given)


def _dumped(manifest: RepositoryManifest) -> bytes:
    return (manifest.model_dump_json(indent=1) + "\n").encode()


def _tag(api: Any, repo: str, version: str, commit: str | None) -> None:
    """Tag a release whose commit is there. One that was published before has its tag, or gets it now, for the commit is named by
    the version."""
    tags = {ref.name for ref in _again(lambda: api.list_repo_refs(repo, repo_type="dataset")).tags}
    if version not in tags:
        if commit is None:
            commits = _again(lambda: list(api.list_repo_commits(repo, repo_type="dataset")))
            commit = next((one.commit_id for one in commits if one.title.startswith(f"{version}: ")), None)
        if commit is None:
            return
        _again(lambda: api.create_tag(repo, tag=version, revision=commit, repo_type="dataset", exist_ok=True))


def _again(call: Callable[[], Any]) -> Any:
    """Call until it goes through: other publishers and a server in trouble are waited for."""
    from huggingface_hub.errors import HfHubHTTPError

    for number in range(TRIES):
        try:
            return call()
        except HfHubHTTPError as error:
            status = getattr(error.response, "status_code", None)
            if status not in AGAIN or number + 1 == TRIES:
                raise
            wait = _asked_to_wait(error)
        except (ConnectionError, _transport_error()):
            if number + 1 == TRIES:
                raise
            wait = None
        time.sleep(wait if wait is not None else min(LONGEST_WAIT_S, 0.1 * 2**number) * random.uniform(0.5, 1.5))
    raise AssertionError("the last try returns or raises")


def _asked_to_wait(error: Any) -> float | None:
    """Seconds that a server asks for: Retry-After, or `t` of RateLimit."""
    headers = error.response.headers
    told = re.search(r"\bt=(\d+)", headers.get("RateLimit", "")) or re.match(r"(\d+)$", headers.get("Retry-After", ""))
    return min(LONGEST_WAIT_S, float(told[1])) if told else None


def _transport_error() -> type[Exception]:
    import httpx2

    found: type[Exception] = httpx2.TransportError
    return found


@contextmanager
def _explained(repo: str) -> Iterator[None]:
    """Say what went wrong in words, and never with what was sent."""
    try:
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalTokenNotFoundError, RepositoryNotFoundError
    except ImportError as error:
        raise PublishError(f"huggingface_hub cannot be imported ({error}); install thresher anew") from error
    try:
        yield
    except LocalTokenNotFoundError as error:
        raise PublishError(f"{repo}: no token; log in with `hf auth login`, or set HF_TOKEN") from error
    except HFValidationError as error:
        raise PublishError(f"{repo}: not the name of a repository, such as ORG/NAME: {str(error).splitlines()[0]}") from error
    except RepositoryNotFoundError as error:
        raise PublishError(f"{repo}: no such dataset repository, or the token may not see it") from error
    except HfHubHTTPError as error:
        status = getattr(error.response, "status_code", "?")
        hint = "; log in with `hf auth login`, or set HF_TOKEN to a token that may write there" if status in (401, 403) else ""
        raise PublishError(
            f"{repo}: the Hub answers {status}: {_first(error)}{hint}; nothing has changed, so try again"
        ) from error
    except (ConnectionError, _transport_error()) as error:
        raise PublishError(f"{repo}: the Hub cannot be reached ({type(error).__name__}); the same command goes on") from error


def _first(error: Any) -> str:
    return str(getattr(error, "server_message", None) or str(error).splitlines()[0])
