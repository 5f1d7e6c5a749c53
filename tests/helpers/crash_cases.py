"""Every change of a dataset repository in a folder, cut off by a crash or a power cut at each of its changes of the disk, and
repeated."""

import hashlib
import io
import json
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

from helpers.recorded_disk import RecordedDisk, State, put
from helpers.releases import sft_ids
from helpers.runs import LOOSE, dataset_of, pool_rows, run_recipe, two_prompts_run
from schemas.dataset import PublishSpec
from schemas.repeats import DedupeSpec
from thresher import yaml_text
from thresher.dedupe.index import Index
from thresher.dedupe.index_runs import RUN_FILES
from thresher.dedupe.released import rule
from thresher.errors import ThresherError
from thresher.pool import lease
from thresher.pool.run import open_run
from thresher.releases.change import revoke, rollback
from thresher.releases.compact import compact
from thresher.releases.places.folder import Folder
from thresher.releases.publish import publish

DERIVED = ("judged", "audited", "writer")
"""Folders of what is made again after a power cut."""


@dataclass
class Case:
    """A command, what it leads to, and the states that a crash or a power cut in it leaves."""

    name: str
    call: Callable[[], Any]
    look: Callable[[Path], dict[str, Any]]
    """What readers see of a folder."""
    seen: dict[str, Any]
    """After the command."""
    disk: RecordedDisk


@contextmanager
def _quick() -> Iterator[None]:
    """Reruns wait for no lease, and read equal YAML once, which is most of the time of a change."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lease, "STALE_S", 0.1)
        patch.setattr(lease, "WAIT_S", 0.1)
        patch.setattr(yaml_text, "load", lambda text, loader=yaml_text.SafeLoader: deepcopy(parsed(text, loader)))
        yield


def _recorded(root: Path, name: str, call: Callable[[], Any], look: Callable[[Path], dict[str, Any]]) -> Case:
    disk = RecordedDisk(root)
    with disk.recording():
        call()
    return Case(name, call, look, look(root), disk)


def run_case(root: Path) -> Case:
    """Record a whole run in `root`, which is compared with an index of released samples, and published to a folder."""
    (root / "inputs").mkdir()
    rows = [{"prompt": f"{number} + {number}?", "answer": str(2 * number)} for number in range(4)]
    answers = [
        {"prompt": row["prompt"], "completion": text, "finish_reason": "stop"}
        for row in rows
        for text in (row["answer"], "none", f"It is {row['answer']}")
    ]
    for name, lines in (("prompts", rows), ("answers", answers)):
        (root / "inputs" / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    recipe = {
        "name": "small",
        "prompts": [{"family": "sums", "source": {"kind": "jsonl", "path": "prompts.jsonl"}, "template": "{{ prompt }}"}],
        "engine": {"kind": "replay", "path": "answers.jsonl"},
        "sampling": {"samples_per_prompt": 3, "max_tokens": 16},
        "filters": [{"name": "finished"}, {"name": "exact_answer"}],
        "dedupe": {"released": {"index": str(root / "index")}},
        "publish": {"repo": str(root / "repo"), "gates": LOOSE, "versions": "semantic"},
        "run": {"shard_samples": 8, "filter_workers": 0},
    }
    path = root / "inputs/recipe.yaml"
    path.write_text(yaml.safe_dump(recipe))
    return _recorded(root, "run", lambda: run_recipe(path, root / "one", salt="a"), seen_of_run)


def seen_of_run(root: Path) -> dict[str, Any]:
    """What readers see of a run and its release."""
    rows = pool_rows(root / "one")
    drawn = [(row["sample_id"], row["completion"], row["finish_reason"]) for row in rows]
    return seen(root) | {"samples": drawn}


def release_cases(root: Path) -> Iterator[Case]:
    """Record each change of a repository in `root`, one after the other."""
    repo = str(root / "repo")
    one, two = (_run_with_index(root, name) for name in ("one", "two"))

    def release(run: Path) -> Callable[[], Any]:
        spec = PublishSpec.model_validate({"repo": repo, "gates": LOOSE, "versions": "semantic"})
        return lambda: publish(open_run(run), spec, force="the verdicts are written by hand")

    changes: dict[str, Callable[[], Any]] = {
        "first publish": release(one),
        "publish": release(two),
        "revoke": lambda: revoke(repo, held[1:2], "wrong"),
        "compact": lambda: compact(repo),
        "rollback": lambda: rollback(repo, "v1.0.0"),
    }
    for name, call in changes.items():
        held = sft_ids(repo) if name != "first publish" else []
        case = _recorded(root, name, call, seen)
        after = state_of(root)
        yield case
        put(root, after)


def repeated(root: Path, case: Case, state: State) -> str | None:
    """What is wrong after the command is repeated in a state that an interrupted one left; None if it held."""
    if broken := list(dangling(state)):
        return f"names what is not there: {broken}"
    put(root, of_a_dead_process(state))
    try:
        with _quick():
            case.call()
    except ThresherError as error:
        return f"fails: {error}"
    if (now := case.look(root)) != case.seen:
        differing = [name for name in now if now[name] != case.seen[name]]
        return "another result: " + ", ".join(f"{name} {_difference(now[name], case.seen[name])}" for name in differing)
    return None


def dangling(state: State) -> Iterator[str]:
    """What the files of a state name that is not there, or not whole: the card and the log of the repository, the index, the
    marks and the entries of runs."""
    digests = {path: hashlib.sha256(content).hexdigest() for path, content in state.items() if content is not None}
    for path in digests:
        home, content = path.rpartition("/")[0], state[path]
        assert content is not None
        if path == "repo/README.md":
            configs = parsed(content.decode().split("---\n")[1])["configs"]
            wanted = [file for config in configs for data in config["data_files"] for file in data["path"]]
            yield from (file for file in wanted if not digests.get(f"repo/{file}", "").startswith(Path(file).stem))
        elif path.startswith("repo/thresher/log/") and path.endswith(".json"):
            yield from (file for file in json.loads(content)["files"] if not state.get(f"repo/{file}"))
        elif path.endswith("index/index.json"):
            for run in json.loads(content)["runs"]:
                files = [f"{home}/runs/{run['name']}/{name}" for name in (*run["files"], *RUN_FILES)]
                yield from (file for file in files if not state.get(file))
        elif path.endswith("/published.json"):
            entries = [state[name] or b"" for name in state if name.startswith("repo/thresher/log/0") and name.endswith(".json")]
            if json.loads(content)["dataset"] not in b"".join(entries).decode():
                yield f"the release that {path} notes"
        elif path.endswith("/released.json"):
            index = state.get("index/index.json")
            if index is None or json.loads(content)["key"] not in index.decode():
                yield f"the release that {path} notes"
        elif path.endswith(".json") and not path.startswith("repo/") and not home.endswith(DERIVED):
            entry = json.loads(content)
            if "sha256" in entry and digests.get(f"{_run_of(path, state)}/{entry['path']}") != entry["sha256"]:
                yield f"what {path} names"


def _run_of(path: str, state: State) -> str:
    """The run directory that a file is in."""
    return next(str(folder) for folder in Path(path).parents if f"{folder}/run.json" in state)


def seen(root: Path) -> dict[str, Any]:
    """What readers see: the rows by the card, the manifest, the tags, the index of released samples, and every name."""
    repo = root / "repo"
    card = (repo / "README.md").read_text()
    matter = parsed(card.split("---\n")[1])
    place = Folder(str(repo))
    index = Index(root / "index", rule(_dedupe(root)))
    splits = [(entry["config_name"], data) for entry in matter["configs"] for data in entry["data_files"]]
    return {
        "rows": {
            (config, data["split"]): [row for path in data["path"] for row in rows_of((repo / path).read_bytes())]
            for config, data in splits
        },
        "keys of the card": matter,
        "text of the card": re.sub(r"\d{4}-\d\d-\d\d", "", card),
        "manifest": _without_times((repo / "thresher/manifest.json").read_text()),
        "entry": _without_times(json.dumps(place.text(place.head(), "thresher/manifest.json"))),
        "tags": place.tags(),
        "index": (index.manifest, index.rows),
        "published": {name: (root / name / "published.json").exists() for name in ("one", "two")},
        "names": {path for path in state_of(root) if "/writer/" not in path},
    }


@cache
def parsed(text: str, loader: Any = yaml_text.FastLoader) -> Any:
    """The value of a YAML document."""
    return yaml.load(text, loader)


@cache
def rows_of(file: bytes) -> list[dict[str, Any]]:
    """The rows of a Parquet file."""
    rows: list[dict[str, Any]] = pq.read_table(io.BytesIO(file)).to_pylist()
    return rows


def state_of(root: Path) -> State:
    """What a folder holds."""
    paths = sorted(root.rglob("*"))
    return {str(path.relative_to(root)): path.read_bytes() if path.is_file() else None for path in paths}


def _without_times(text: str) -> str:
    return re.sub(r'\\?"at\\?": ?\\?"[^"\\]*\\?"', "", text)


def _dedupe(root: Path) -> DedupeSpec:
    return DedupeSpec.model_validate({"released": {"index": str(root / "index")}})


def _run_with_index(root: Path, name: str) -> Path:
    run = open_run(two_prompts_run(root, name))
    recipe = run.recipe.model_copy(update={"dedupe": _dedupe(root)})
    run.store.write_model("run.json", run.manifest.model_copy(update={"recipe": recipe}))
    dataset_of(open_run(run.root))
    return Path(run.root)


def of_a_dead_process(state: State) -> State:
    """The state with the process id of one that has ended in all names."""
    dead = subprocess.Popen(["true"])
    dead.wait()
    return {re.sub(rf"\b{os.getpid()}\b", str(dead.pid), path): content for path, content in state.items()}


def _difference(now: Any, wanted: Any) -> str:
    """What a set has too much or lacks; nothing of other values."""
    return f"more {sorted(now - wanted)}, fewer {sorted(wanted - now)}" if isinstance(now, set) else ""
