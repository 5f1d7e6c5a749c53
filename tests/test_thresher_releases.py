"""Releases on a Hub that the real clients talk to: whole or not at all, nothing twice, whatever breaks."""

import json
import os
import runpy
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from schemas.release import RepositoryManifest
from thresher import steps
from thresher.opening import begin_brought
from thresher.progress import Progress
from thresher.recipes import load
from thresher.releases import END, readme

HERE = runpy.run_path(str(Path(__file__).with_name("hub_server.py")))
Hub: Any = HERE["Hub"]
Fault: Any = HERE["Fault"]
REPO = "acme/sums"
LOAD = """
import json, sys, datasets
found = {}
for revision in sys.argv[2:]:
    one = datasets.load_dataset(sys.argv[1], "sft", split="train", revision=revision)
    streamed = list(datasets.load_dataset(sys.argv[1], "sft", split="train", revision=revision, streaming=True))
    assert [row["sample_id"] for row in streamed] == one["sample_id"][:]
    found[revision] = one["sample_id"][:]
print(json.dumps(found))
"""


@pytest.fixture
def hub(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Any]:
    with Hub(tmp_path / "hub") as server:
        server.environment = os.environ | {
            "HF_ENDPOINT": server.url,
            "HF_HOME": str(tmp_path / "home"),
            "HF_TOKEN": "hf_alice",
            "HF_HUB_OFFLINE": "0",
            "HF_HUB_DISABLE_XET": "1" if request.param == "lfs" else "0",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "HF_HUB_DISABLE_UPDATE_CHECK": "1",
        }
        yield server


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., Path]:
    def made(first: int, prompts: int = 3, right: int = 3, **dataset: Any) -> Path:
        rows = []
        for a in range(first, first + prompts):
            said = [f"Counting on from {a}, {way}, one comes to A: {a + 1}" for way in ("slowly", "at once", "by one step")]
            said = [text if number < right else text + "0" for number, text in enumerate(said)]
            rows += [{"prompt": f"What follows {a}?", "reference": str(a + 1), "completion": text} for text in said]
        (tmp_path / f"{first}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        filters = [{"name": "exact_answer", "parameters": {"after": "A:"}}]
        recipe = {"name": "sums", "filters": filters, "run": {"filter_workers": 0}, "dedupe": {"within_prompt": 0.99}}
        recipe["dedupe"]["released"] = {"index": "index"}
        recipe["dataset"] = {"views": ["sft", "prompts", "rollouts"]} | dataset
        (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
        steps.run(
            begin_brought(load(tmp_path / "recipe.yaml"), tmp_path / f"{first}.jsonl", tmp_path / f"run{first}"), Progress()
        )
        return tmp_path / f"run{first}"

    return made


def thresher(hub: Any, *arguments: Any, status: int = 0) -> str:
    """Run a command; gives what it printed."""
    command = [sys.executable, "-m", "thresher.cli", *map(str, arguments)]
    done = subprocess.run(command, env=hub.environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == status, done.stdout + done.stderr
    assert "hf_alice" not in done.stdout + done.stderr
    return done.stdout if status == 0 else " ".join(done.stderr.split())


def publish(hub: Any, run: Path, *more: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(thresher(hub, "publish", run, "--repo", REPO, "--json", *more))
    return found


def loaded(hub: Any, *revisions: str) -> dict[str, list[str]]:
    command = [sys.executable, "-c", LOAD, REPO, *revisions]
    done = subprocess.run(command, env=hub.environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, list[str]] = json.loads(done.stdout)
    return found


def commits(hub: Any) -> list[str]:
    """Titles of the commits of main, the newest first."""
    repository, found = hub.repositories[REPO], []
    oid = repository.refs["refs/heads/main"]
    while oid:
        found.append(repository.commits[oid].title)
        oid = repository.commits[oid].parent
    return found


def sent(hub: Any) -> int:
    """Bytes of content that were uploaded."""
    return sum(one["bytes"] for one in hub.log if "/xorbs/" in one["path"] or "/_lfs/" in one["path"])


@pytest.mark.slow
@pytest.mark.parametrize("hub", ["xet"], indirect=True)
def test_runs_are_appended_each_in_one_commit_and_never_twice(hub: Any, run: Callable[..., Path], tmp_path: Path) -> None:
    """Every tag loads as it was; what was released is not sent again; a rollback moves no data."""
    first, second = run(10), run(20, 2)
    one = publish(hub, first)
    two = publish(hub, second)
    before = sent(hub)
    again = publish(hub, first)

    assert (one["rows"]["sft"], two["rows"]["sft"]) == (9, 6)
    assert again == one | {"commit": None}
    assert sent(hub) == before
    assert commits(hub) == [
        f"{two['version']}: added sums: 6 sft, 2 prompts, 6 rollouts",
        f"{one['version']}: added sums: 9 sft, 3 prompts, 9 rollouts",
        "initial commit",
    ]
    tree = hub.repositories[REPO].at("main").tree
    local = {f"index/{file.relative_to(tmp_path / 'index')}" for file in tmp_path.glob("index/**/*") if file.is_file()}
    assert {path for path in tree if path.startswith("index/")} == local - {"index/.lock"}
    assert len([path for path in tree if path.endswith("signatures.parquet")]) == 2

    found = loaded(hub, one["version"], two["version"], "main")
    assert [len(found[name]) for name in (one["version"], two["version"], "main")] == [9, 15, 15]
    assert set(found["main"]) > set(found[one["version"]])
    assert thresher(hub, "releases", REPO).splitlines() == [
        f"{one['version']}  sums: 9 sft, 3 prompts, 9 rollouts",
        f"{two['version']}  sums: 6 sft, 2 prompts, 6 rollouts",
    ]

    assert "holds what it held" in thresher(hub, "rollback", REPO, "--to", one["version"])
    assert "has already" in thresher(hub, "rollback", REPO, "--to", one["version"])
    assert sent(hub) == before
    assert loaded(hub, "main")["main"] == found[one["version"]]
    assert publish(hub, second)["version"] not in (one["version"], two["version"])
    assert sorted(loaded(hub, "main")["main"]) == sorted(found["main"])
    assert "no release 'v0'; there are v" in thresher(hub, "rollback", REPO, "--to", "v0", status=1)


@pytest.mark.slow
@pytest.mark.parametrize("hub", ["xet"], indirect=True)
def test_a_server_in_trouble_is_waited_for(hub: Any, run: Callable[..., Path]) -> None:
    """Too many requests, a lost connection, a moved head, and a commit whose answer was lost: one commit comes of it."""
    publish(hub, run(10))
    hub.faults += [
        Fault("/commit/", status=429, headers={"RateLimit": '"api";r=0;t=1'}),
        Fault("/commit/", status=503),
        Fault("/commit/", status=412),
        Fault("/commit/", status=None, after=True),
        Fault("/tag/", status=500),
        Fault("thresher/manifest.json", method="HEAD", status=503, times=2),
    ]

    made = publish(hub, run(20))

    assert not [fault for fault in hub.faults if fault.times]
    assert len(commits(hub)) == 3
    assert made["version"] in commits(hub)[0]
    assert f"refs/tags/{made['version']}" in hub.repositories[REPO].refs
    assert len(loaded(hub, made["version"])[made["version"]]) == 18


@pytest.mark.slow
@pytest.mark.parametrize("hub", ["xet"], indirect=True)
def test_publishers_side_by_side_lose_nothing(hub: Any, run: Callable[..., Path]) -> None:
    runs = [run(first, 1) for first in (10, 20, 30, 40)]
    command = [sys.executable, "-m", "thresher.cli", "publish", "--repo", REPO]
    going = [subprocess.Popen([*command, str(one)], env=hub.environment, stdout=subprocess.DEVNULL) for one in runs]

    assert [one.wait(120) for one in going] == [0, 0, 0, 0]
    assert len(loaded(hub, "main")["main"]) == 12
    assert len(commits(hub)) == 5
    listed = json.loads(thresher(hub, "releases", REPO, "--json"))
    assert len({one["version"] for one in listed["releases"]}) == 4


@pytest.mark.slow
@pytest.mark.parametrize("hub", ["lfs"], indirect=True)
def test_what_must_not_be_released_is_refused_with_its_reason(hub: Any, run: Callable[..., Path], tmp_path: Path) -> None:
    publish(hub, run(10))
    worse = run(20, right=1)

    said = thresher(hub, "publish", worse, "--repo", REPO, status=1)
    assert "pass_rate fell from 1 (v" in said
    assert len(commits(hub)) == 2
    forced = publish(hub, worse, "--force", "the new prompts are harder")
    text = hub.content(hub.repositories[REPO].at("main").tree["README.md"]).decode()
    assert f"- {forced['version']}: added sums" in text
    assert "the new prompts are harder" in text

    repository = hub.repositories[REPO]
    head = repository.at("main")
    shard = next(file for path, file in head.tree.items() if path.startswith("sft/"))
    repository.add("refs/heads/main", head.oid, head.tree | {"sft/train/mine.parquet": shard}, "upload mine", "bob")
    said = thresher(hub, "publish", run(30), "--repo", REPO, "--force", "x", status=1)
    assert "holds sft/train/mine.parquet" in said
    assert "no release brought" in said

    held_out = run(50, test_share=0.5)
    repository.refs["refs/heads/main"] = head.oid
    said = thresher(hub, "publish", held_out, "--repo", REPO, status=1)
    assert "holds out 0 of the prompts, the run 0.5; prompts would change sides" in said

    hub.environment["HF_TOKEN"] = "hf_nobody"
    assert "the Hub answers 401" in thresher(hub, "publish", run(10), "--repo", REPO, status=1)
    hub.environment["HF_TOKEN"] = "hf_alice"
    assert "the Hub answers 403" in thresher(hub, "publish", run(10), "--repo", "google/sums", status=1)
    assert "not the name of a repository" in thresher(hub, "publish", run(10), "--repo", "a/b/c", status=1)
    (tmp_path / "empty").mkdir()
    assert "not a run directory" in thresher(hub, "publish", tmp_path / "empty", "--repo", REPO, status=1)


@pytest.mark.slow
@pytest.mark.parametrize("hub", ["xet"], indirect=True)
def test_a_pull_request_leaves_main_alone(hub: Any, run: Callable[..., Path]) -> None:
    made = publish(hub, run(10), "--create-pr")

    assert made["request"].endswith("/discussions/1")
    assert commits(hub) == ["initial commit"]
    assert len(loaded(hub, "refs/pr/1")["refs/pr/1"]) == 9


def test_what_a_person_wrote_into_the_card_stays() -> None:
    made = "---\nlicense: mit\nconfigs: []\n---\n\n# Sums\n\nNew words.\n"
    manifest = RepositoryManifest(columns={}, releases=(), changes=("v2: added", "v1: added"))
    matter = "license: apache-2.0\nextra_gated_prompt: Say why.\n"
    old = f"---\n{matter}---\n# Sums\n\nOld words.\n\n{END}\n\n## Known faults\n\nNone.\n"

    text = readme(made, manifest, old)

    matter, body = text.split("---\n")[1:3]
    assert yaml.safe_load(matter) == {"license": "mit", "configs": [], "extra_gated_prompt": "Say why."}
    assert "New words." in body
    assert "Old words." not in body
    assert body.endswith(f"## Releases\n\n- v2: added\n- v1: added\n\n{END}\n## Known faults\n\nNone.\n")
    assert readme(made, manifest, text) == text
