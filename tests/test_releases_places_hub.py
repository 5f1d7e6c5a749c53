"""Releases on a Hub that the real clients talk to: complete or not at all, and nothing twice, whatever fails."""

import io
import json
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from helpers import FOLDER
from helpers.hub_commits import REPO, content, put
from helpers.runs import filter_rows


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., Path]:
    """Filter samples of prompts numbered from `first`, `right` of three right; returns the run's directory."""

    def filtered(first: int, prompts: int = 3, right: int = 3, publish: dict[str, Any] | None = None, **dataset: Any) -> Path:
        rows = []
        for a in range(first, first + prompts):
            texts = [f"Counting on from {a}, {way}, one comes to A: {a + 1}" for way in ("slowly", "at once", "by one step")]
            texts = [text if number < right else text + "0" for number, text in enumerate(texts)]
            rows += [{"prompt": f"What follows {a}?", "reference": str(a + 1), "completion": text} for text in texts]
        recipe = {
            "name": "sums",
            "dedupe": {"within_prompt": 0.99, "released": {"index": "index"}},
            "dataset": {"views": ["sft", "prompts", "rollouts"]} | dataset,
            "publish": publish or {},
        }
        return filter_rows(tmp_path, rows, recipe, f"run{first}")

    return filtered


def thresher(hub: Any, *arguments: Any, status: int = 0) -> str:
    """Run a command; returns what it printed."""
    found, out, errors = hub.ask(thresher=[str(entry) for entry in arguments])
    assert found == status, out + errors
    assert "hf_alice" not in out + errors
    return out if status == 0 else " ".join(errors.split())


def publish(hub: Any, run: Path, *more: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(thresher(hub, "publish", run, "--repo", REPO, "--json", *more))
    return found


def loaded(hub: Any, *revisions: str, config: str = "sft") -> dict[str, list[str]]:
    status, out, errors = hub.ask(load=[REPO, config, *revisions])
    assert status == 0, errors
    found: dict[str, list[str]] = json.loads(out)
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
    return sum(request["bytes"] for request in hub.log if "/xorbs/" in request["path"] or "/_lfs/" in request["path"])


@pytest.mark.slow
@pytest.mark.parametrize("hub", ["xet", "lfs"], indirect=True)
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
    """Too many requests, a lost connection, a moved head, and a commit whose answer was lost end in one commit."""
    publish(hub, run(10))
    hub.faults += [
        hub.Fault("/commit/", status=429, headers={"RateLimit": '"api";r=0;t=1'}),
        hub.Fault("/commit/", status=503),
        hub.Fault("/commit/", status=412),
        hub.Fault("/commit/", status=None, after=True),
        hub.Fault("/tag/", status=500),
        hub.Fault("thresher/manifest.json", method="HEAD", status=503, times=2),
    ]

    made = publish(hub, run(20))

    assert not [fault for fault in hub.faults if fault.times]
    assert len(commits(hub)) == 3
    assert made["version"] in commits(hub)[0]
    assert f"refs/tags/{made['version']}" in hub.repositories[REPO].refs
    assert len(loaded(hub, made["version"])[made["version"]]) == 18

    hub.faults.append(hub.Fault("/commit/", status=403))
    third = run(30)
    assert "the Hub answers 403" in thresher(hub, "publish", third, "--repo", REPO, status=1)
    before = sent(hub)
    assert publish(hub, third)["rows"]["sft"] == 9
    assert sent(hub) == before > 0


@pytest.mark.slow
@pytest.mark.parametrize("hub", ["xet"], indirect=True)
def test_publishers_side_by_side_lose_nothing(hub: Any, run: Callable[..., Path], tmp_path: Path) -> None:
    """Three publishers of four runs each, killed repeatedly, with a failing Hub: every row once, and every commit complete."""
    each = [[run(100 * publisher + 10 * number, 1) for number in range(4)] for publisher in range(3)]
    chance, running, kills = random.Random(7), {}, 0
    troubles = [("/commit/main", 503, False), ("/commit/main", None, True), ("preupload", 500, False), ("/v1/xorbs", 503, False)]
    troubles += [("/commit/main", 429, False), ("/tag/", None, True), ("/resolve/", 502, False)]

    def begun(publisher: int) -> subprocess.Popen[str]:
        """Publish all runs of a publisher, again or for the first time."""
        with (tmp_path / "publishers.log").open("a") as log:
            program = [sys.executable, str(FOLDER / "hub_client.py")]
            made = subprocess.Popen(
                program, env=hub.environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True
            )
        assert made.stdin is not None
        for entry in each[publisher]:
            made.stdin.write(json.dumps({"thresher": ["publish", str(entry), "--repo", REPO]}) + "\n")
        made.stdin.close()
        made.stdin = None
        return made

    seen, reads, deadline = 0, 0, time.monotonic() + 500
    running = {publisher: begun(publisher) for publisher in range(3)}
    kill_at = time.monotonic() + 5
    while running:
        assert time.monotonic() < deadline
        time.sleep(0.1)
        if chance.random() < 0.15 and len(hub.faults) < 40:
            path, status, after = chance.choice(troubles)
            hub.faults.append(hub.Fault(path, status=status, after=after, headers={"Retry-After": "1"}))
        if kills < 4 and time.monotonic() > kill_at:
            victim = chance.choice(list(running))
            running[victim].kill()
            running[victim].communicate()
            running[victim] = begun(victim)
            kills, kill_at = kills + 1, time.monotonic() + chance.uniform(1, 4)
        if REPO in hub.repositories and len(commits(hub)) > 1 and reads < 3:
            rows = len(loaded(hub, "main")["main"])
            assert rows >= seen
            assert rows % 3 == 0
            seen, reads = rows, reads + 1
        for publisher, one in list(running.items()):
            if one.poll() is not None:
                answers = [json.loads(line) for line in one.communicate()[0].splitlines()]
                assert [answer[0] for answer in answers] == [0] * 4, answers
                del running[publisher]

    assert kills == 4
    assert reads == 3
    hub.faults.clear()
    names = loaded(hub, "main")["main"]
    assert len(names) == len(set(names)) == 36
    assert len(commits(hub)) == 13
    listed = json.loads(thresher(hub, "releases", REPO, "--json"))
    assert len({item["version"] for item in listed["releases"]}) == 12
    repository = hub.repositories[REPO]
    tags = {ref.removeprefix("refs/tags/"): oid for ref, oid in repository.refs.items() if ref.startswith("refs/tags/")}
    assert {release["version"] for release in listed["releases"]} == set(tags)
    for oid in tags.values():
        assert_whole(hub, repository.commits[oid].tree)


def assert_whole(hub: Any, tree: dict[str, Any]) -> None:
    """Card, manifest, shards and index of a commit agree."""
    manifest = json.loads(hub.content(tree["thresher/manifest.json"]))
    shards = {shard["path"]: shard for release in manifest["releases"] for every in release["views"].values() for shard in every}
    assert set(shards) == {path for path in tree if path.endswith(".parquet") and not path.startswith("index/")}
    told = yaml.safe_load(hub.content(tree["README.md"]).decode().split("---\n")[1])
    for info in told["dataset_info"]:
        rows = sum(shard["rows"] for path, shard in shards.items() if path.startswith(f"{info['config_name']}/"))
        assert sum(split["num_examples"] for split in info["splits"]) == rows
    index = json.loads(hub.content(tree["index/index.json"]))
    wanted = {
        f"index/runs/{one['name']}/{name}" for one in index["runs"] for name in (*one["files"], "bloom.npy", "signatures.parquet")
    }
    assert wanted == {path for path in tree if path.startswith("index/runs/")}
    assert {item["run"] for item in manifest["releases"]} <= set(index["releases"])


@pytest.mark.slow
@pytest.mark.parametrize("hub", ["lfs"], indirect=True)
def test_unfit_releases_are_refused_with_their_reasons(hub: Any, run: Callable[..., Path], tmp_path: Path) -> None:
    publish(hub, run(10))
    worse = run(20, right=1)

    said = thresher(hub, "publish", worse, "--repo", REPO, status=1)
    assert "pass_rate fell from 1 (v" in said
    assert len(commits(hub)) == 2
    forced = publish(hub, worse, "--force", "the new prompts are harder")
    text = hub.content(hub.repositories[REPO].at("main").tree["README.md"]).decode()
    assert f"- {forced['version']}: added sums" in text
    assert "forced by alice, knowing what follows: the new prompts are harder; pass_rate fell from 1" in text

    repository = hub.repositories[REPO]
    head = repository.at("main")
    shard = next(file for path, file in head.tree.items() if path.startswith("sft/"))
    repository.add("refs/heads/main", head.oid, head.tree | {"sft/train/mine.parquet": shard}, "upload mine", "bob")
    said = thresher(hub, "publish", run(30), "--repo", REPO, "--force", "x", status=1)
    assert "holds sft/train/mine.parquet" in said
    assert "no release added" in said

    held_out = run(50, test_share=0.5)
    repository.refs["refs/heads/main"] = head.oid
    said = thresher(hub, "publish", held_out, "--repo", REPO, status=1)
    assert "holds out 0 of the prompts, the run 0.5; prompts would change their split" in said

    hub.environment["HF_TOKEN"] = "hf_nobody"
    assert "the Hub answers 401" in thresher(hub, "publish", run(10), "--repo", REPO, status=1)
    hub.environment["HF_TOKEN"] = "hf_alice"
    assert "the Hub answers 403" in thresher(hub, "publish", run(10), "--repo", "google/sums", status=1)
    assert "not the name of a repository" in thresher(hub, "publish", run(10), "--repo", "a/b/c", status=1)
    (tmp_path / "empty").mkdir()
    assert "not a run directory" in thresher(hub, "publish", tmp_path / "empty", "--repo", REPO, status=1)


@pytest.mark.slow
@pytest.mark.parametrize("hub", ["xet", "lfs"], indirect=True)
def test_shards_are_merged_and_samples_taken_back_behind_a_reader(hub: Any, run: Callable[..., Path]) -> None:
    """The rows stay, in fewer files; revoked samples are listed immediately and dropped by the merge."""
    runs = [run(first, 2, publish={"versions": "semantic"}, test_share=0.4) for first in (10, 20, 30)]
    tags = [publish(hub, item)["version"] for item in runs]
    assert tags == ["v1.0.0", "v1.1.0", "v1.2.0"]
    before = loaded(hub, "main")["main"]
    shards = [
        path for path in hub.repositories[REPO].at("main").tree if path.endswith(".parquet") and not path.startswith("index/")
    ]

    gone = before[::4]
    said = thresher(hub, "revoke", REPO, *gone, "--reason", "personal data")
    assert said == f"{REPO}: v1.2.1: took back {len(gone)} samples: personal data\n"
    assert "revoked before" in thresher(hub, "revoke", REPO, *gone, "--reason", "once more")
    assert loaded(hub, "main")["main"] == before
    revoked = loaded(hub, "main", config="revoked")["main"]
    assert revoked == gone

    hub.faults += [hub.Fault("/commit/thresher-staging", status=503), hub.Fault("/commit/main", status=None, after=True)]
    made = json.loads(thresher(hub, "compact", REPO, "--json"))
    assert (made["version"], made["files"][0]) == ("v1.2.2", len(shards) + 1)
    assert made["files"][1] < len(shards)
    assert "as few and as large" in thresher(hub, "compact", REPO)
    assert sorted(loaded(hub, "main")["main"]) == sorted(set(before) - set(gone))
    assert not [ref for ref in hub.repositories[REPO].refs if "staging" in ref]
    assert "config_name: revoked" not in hub.content(hub.repositories[REPO].at("main").tree["README.md"]).decode()
    assert loaded(hub, tags[2])[tags[2]] == before

    assert publish(hub, runs[1])["commit"] is None
    assert publish(hub, run(40, 2, publish={"versions": "semantic"}, test_share=0.4))["version"] == "v1.3.0"
    listed = thresher(hub, "releases", REPO).splitlines()
    assert [line.split()[0] for line in listed] == ["v1.0.0", "v1.1.0", "v1.2.0", "v1.2.2", "v1.3.0"]
    assert "holds what it held" in thresher(hub, "rollback", REPO, "--to", "v1.1.0")
    assert len(loaded(hub, "main")["main"]) == len(loaded(hub, "v1.1.0")["v1.1.0"])


@pytest.mark.slow
@pytest.mark.parametrize("hub", ["xet"], indirect=True)
def test_views_go_to_different_repositories(hub: Any, run: Callable[..., Path]) -> None:
    one = run(10)
    open_to_all = publish(hub, one, "--views", "sft,prompts")
    gated = json.loads(
        thresher(hub, "publish", one, "--repo", "acme/rollouts", "--views", "rollouts", "--gated", "manual", "--json")
    )

    assert list(open_to_all["rows"]) == ["sft", "prompts"]
    assert not [path for path in hub.repositories[REPO].at("main").tree if path.startswith("rollouts/")]
    assert list(gated["rows"]) == ["rollouts"]
    assert hub.repositories["acme/rollouts"].gated == "manual"
    said = thresher(hub, "publish", one, "--repo", REPO, "--views", "preference", status=1)
    assert "preference is not among the dataset's views (sft, prompts, rollouts)" in said
    said = thresher(hub, "publish", one, "--repo", REPO, "--gate", "undecided=2", status=1)
    assert "publish.gates.undecided: Input should be less than or equal to 1, found 2" in said


@pytest.mark.slow
@pytest.mark.parametrize("hub", ["xet"], indirect=True)
def test_tokens_are_written_nowhere(hub: Any, run: Callable[..., Path], tmp_path: Path) -> None:
    """Neither in output or errors, nor in any file of run, cache or repository."""
    hub.environment["HF_DEBUG"] = "1"
    one, token = run(10), "hf_secretsecretsecretsecretsecret"
    hub.environment["HF_TOKEN"] = token
    said = [thresher(hub, "publish", one, "--repo", REPO, status=1)]
    hub.faults += [hub.Fault("/commit/", status=403), hub.Fault("/api/repos/create", status=400)]
    hub.environment["HF_TOKEN"] = "hf_alice"
    said += [thresher(hub, "publish", one, "--repo", REPO, status=1) for _ in range(2)]
    said += [thresher(hub, "publish", one, "--repo", REPO), thresher(hub, "compact", REPO, "--json")]

    written = [file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()]
    assert len(written) > 30
    assert len(commits(hub)) == 2
    for secret in ("hf_alice", token):
        assert not [text for text in said if secret in text]
        assert not [data for data in written if secret.encode() in data]


@pytest.mark.slow
@pytest.mark.parametrize("hub", ["xet"], indirect=True)
def test_a_pull_request_leaves_main_alone(hub: Any, run: Callable[..., Path]) -> None:
    made = publish(hub, run(10), "--create-pr")

    assert made["request"].endswith("/discussions/1")
    assert commits(hub) == ["initial commit"]
    assert len(loaded(hub, "refs/pr/1")["refs/pr/1"]) == 9


@pytest.mark.slow
@pytest.mark.parametrize("hub", ["lfs"], indirect=True)
def test_a_card_of_a_person_and_their_config_survive_on_the_hub(hub: Any, run: Callable[..., Path]) -> None:
    """It is there before the first release, is edited between releases, and after each change `datasets` loads their config."""
    table = io.BytesIO()
    pq.write_table(pa.table({"prompt_id": ["mine"]}), table)
    matter = b"\xef\xbb\xbf---\r\nlicense: gpl # ours\r\nconfigs:\r\n- config_name: mine\r\n  data_files: data/*\r\n"
    put(hub, {"README.md": matter + b"---\r\n# Mine\r\n\r\nText", "data/a.parquet": table.getvalue()})

    def stays(*words: str) -> None:
        text = content(hub, "README.md").decode()
        assert not [word for word in ("license: gpl # ours\n", "# Mine\r\n\r\nText", *words) if text.count(word) != 1]

    first = publish(hub, run(10))["version"]
    stays()
    text = content(hub, "README.md").decode()
    text = text.replace("<!--", "Above.\n<!--", 1).replace("## Limits", "Between.\n\n## Limits") + "Below.\n"
    put(hub, {"README.md": text.encode()})
    publish(hub, run(20))
    words = ("Above.\n", "Between.\n", "Below.\n")
    stays(*words)
    thresher(hub, "revoke", REPO, loaded(hub, "main")["main"][0], "--reason", "wrong")
    stays(*words)
    thresher(hub, "compact", REPO)
    thresher(hub, "rollback", REPO, "--to", first)
    stays(*words)
    assert loaded(hub, "main", config="mine")["main"] == ["mine"]
    before = commits(hub)
    put(hub, {"README.md": b"\xff"})
    assert f"{REPO}/README.md: is not UTF-8 text" in thresher(hub, "publish", run(20), "--repo", REPO, status=1)
    assert commits(hub)[1:] == before


@pytest.mark.slow
@pytest.mark.parametrize("hub", ["xet"], indirect=True)
def test_damaged_shards_are_named_and_sent_again_or_restored(hub: Any, run: Callable[..., Path]) -> None:
    """A shard is missing, another has other content of the same size: the run that released them sends them again, a rollback
    restores them from a tag, and other runs name them."""
    one, two = run(10), run(20)
    first, second = publish(hub, one), publish(hub, two)
    rows = loaded(hub, "main")["main"]
    manifest = json.loads(content(hub, "thresher/manifest.json"))
    sft, rollouts = (manifest["releases"][0]["views"][view][0]["path"] for view in ("sft", "rollouts"))
    whole = content(hub, rollouts)
    damage = {sft: None, rollouts: whole[:-9] + b"123456789"}

    put(hub, damage)
    for command in (("publish", two, "--repo", REPO), ("publish", run(30), "--repo", REPO), ("compact", REPO)):
        said = thresher(hub, *command, status=1)
        assert "2 shards of its releases are damaged" in said
        assert f"{sft} ({first['version']}, sums) is missing" in said
        assert f"{rollouts} ({first['version']}, sums) has another content than was released" in said
    assert publish(hub, one)["mended"] == sorted((sft, rollouts))
    assert content(hub, rollouts) == whole
    assert loaded(hub, "main")["main"] == rows
    assert publish(hub, one)["commit"] is None
    card = content(hub, "README.md")
    put(hub, {"README.md": None})
    assert publish(hub, two)["mended"] == ["README.md"]
    assert content(hub, "README.md") == card

    put(hub, damage)
    assert "holds what it held" in thresher(hub, "rollback", REPO, "--to", second["version"])
    assert content(hub, rollouts) == whole
    assert loaded(hub, "main")["main"] == rows
    assert "2 of 3 ids are of no sample there, so nothing was revoked: x, y; wanted" in thresher(
        hub, "revoke", REPO, "x", rows[0], "y", "--reason", "wrong", status=1
    )
    assert "has already" in thresher(hub, "rollback", REPO, "--to", second["version"])
