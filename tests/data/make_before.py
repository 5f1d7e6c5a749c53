"""Write tests/data/before: small runs and a release made by one version of the code, for tests/test_equality_before.py.

Run it with the code of the commit you want to compare with:

    git worktree add /tmp/before COMMIT
    cd /tmp/before && PYTHONPATH=/tmp/before python /path/to/tests/data/make_before.py /path/to/tests/data/before

It uses only the command line and the files of a run directory, not the modules of thresher.
The folder it writes:

    recipe.yaml, own.yaml, web.yaml and *.jsonl   inputs; model/ is a directory that only looks like a model
    index_before/     the index of released samples before the run `complete`, and
    index/            after it
    complete/         a finished run: four families, anchors, adaptive budget, near misses, held-out prompts,
                      duplicates of a prompt, of the run and of released samples
    stopped/          the same run, killed while it sampled: some shards, one journal, one shard without verdicts
    own/              `thresher filter` of own samples, of which one row cannot be read
    web/              a finished run of an HTTP server that returns tokens and log-probabilities
    released/         a repository in a folder: v1.0.0 is another small run, v1.1.0 is `complete`
    expected.json     what `described` returns for each of these runs

In run.json the folder of the recipe is written as /before; the test replaces it with the folder it works in.
"""

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

PLACEHOLDER = "/before"
ANSWERS = 12
CAPITALS = {
    "France": "Paris", "Spain": "Madrid", "Japan": "Tokyo", "Italy": "Rome", "Egypt": "Cairo", "Peru": "Lima",
    "Norway": "Oslo", "Kenya": "Nairobi", "Cuba": "Havana", "Chile": "Santiago",
}  # fmt: skip
OPPOSITES = {
    "hot": "cold", "big": "small", "wet": "dry", "old": "new", "high": "low", "loud": "quiet", "open": "closed",
    "early": "late", "thick": "thin", "near": "far",
}  # fmt: skip
VOTES = ["a colour", "a tree", "a river", "a metal", "a planet", "a fruit", "a bird", "a fish", "a game", "a tool"]
COUNTED = (
    "Let us count slowly and with great care, one apple after the other from the first basket to the last, and write every step "
    "down so that nothing is counted twice and nothing is left out on the way; then the answer is {c}."
)
"""Long enough that answers to different prompts are compared."""
STORY = (
    "{who} puts {a} apples into the first basket and {b} apples into the second one, carries both of them home along the river, "
    "empties them on the kitchen table and counts what lies there, which makes \\boxed{{{c}}}."
)

RECIPE: dict[str, Any] = {
    "name": "before",
    "model": {"name": "model"},
    "engine": {"kind": "replay", "path": "answers.jsonl"},
    "prompts": [
        {
            "family": "sums",
            "source": {"kind": "jsonl", "path": "sums.jsonl"},
            "template": "What is {{ a }} + {{ b }}?",
            "system": "You are good at sums.",
            "limit": 8,
            "license": "mit",
        },
        {
            "family": "capitals",
            "source": {"kind": "jsonl", "path": "capitals.jsonl"},
            "template": "What is the capital of {{ country }}?",
            "few_shot": [{"user": "What is the capital of Austria?", "assistant": "Vienna"}],
            "limit": 8,
        },
        {
            "family": "opposites",
            "source": {"kind": "jsonl", "path": "opposites.jsonl"},
            "template": "What is the opposite of {{ word }}?",
            "limit": 8,
        },
        {
            "family": "votes",
            "source": {"kind": "jsonl", "path": "votes.jsonl"},
            "template": "Name {{ kind }}.",
            "reference": None,
            "limit": 8,
        },
    ],
    "sampling": {
        "samples_per_prompt": 4,
        "target_hits": 3,
        "max_samples_per_prompt": 12,
        "give_up_below": 0.2,
        "max_tokens": 64,
    },
    "filters": [
        {"name": "finished"},
        {"name": "math_answer", "families": ["sums"]},
        {"name": "exact_answer", "families": ["capitals"], "parameters": {"strip": ".!"}},
        {
            "name": "regex",
            "families": ["opposites"],
            "parameters": {"pattern": "[Oo]pposite: (?P<answer>[a-z]+)", "where": "anywhere"},
        },
        {"name": "majority", "families": ["votes"], "parameters": {"answer": "text", "min_votes": 2}},
    ],
    "dedupe": {"released": {"index": "index"}},
    "dataset": {
        "test_share": 0.3,
        "license": "mit",
        "description": "Made to be compared.",
        "preference": {"form": True, "length_ratio": 4},
    },
    "publish": {"versions": "semantic", "gates": {"undecided": 1.0, "pass_rate_drop": 1.0, "diversity_drop": 1.0}},
    "run": {"shard_samples": 40, "shards_in_flight": 1, "filter_workers": 0, "verifier_workers": 1},
}
OWN: dict[str, Any] = {
    "name": "own",
    "filters": [{"name": "finished"}, {"name": "math_answer", "families": ["sums"]}],
    "dataset": {"license": "mit"},
    "run": {"filter_workers": 0, "verifier_workers": 1},
}
WEB: dict[str, Any] = {
    "name": "web",
    "model": {"name": "small"},
    "engine": {"kind": "openai_http", "base_urls": ["http://127.0.0.1:9/v1"]},
    "prompts": [
        {
            "family": "numbers",
            "source": {"kind": "grid", "fields": {"n": [1, 2, 3, 4, 5, 6]}},
            "template": "Number {{ n }}",
            "reference": None,
        }
    ],
    "sampling": {"samples_per_prompt": 4, "max_tokens": 12},
    "filters": [{"name": "finished"}, {"name": "regex", "parameters": {"pattern": "^[0-9 ]+$"}}],
    "run": {"shard_samples": 15, "filter_workers": 0},
}
MORE = "sampling.samples_per_prompt=6"
"""What the test raises in web.yaml."""


# -- what is compared ----------------------------------------------------------------------------------------------------


def described(run: Path) -> dict[str, Any]:
    """Return all of a run that must be equal: keys, ids, and the SHA-256 of pool, verdict and dataset files.

    Left out is what holds times (seconds), versions, hosts or absolute paths: begun.json, run.json but for its key, starts/,
    the facts `seconds`, `known` (verdicts taken from an earlier pass), `calibration` (sums in the order answers came) and
    `broken` where it is 0 (earlier versions did not note it), and the dataset card, whose words may change.
    """
    manifest = json.loads((run / "run.json").read_text())
    tables, samples = {}, []
    for file in sorted(
        [run / "prompts.json", *run.glob("samples/*.json"), *run.glob("verdicts/*.json"), *run.glob("corpus/*.json")]
    ):
        entry = json.loads(file.read_text())
        name = str(file.relative_to(run)).removesuffix(".json")
        tables[name] = {
            "path": entry["path"],
            "rows": entry["rows"],
            "key": entry["key"],
            "sha256": sha256(run / entry["path"]),
            "facts": _steady(entry["facts"]),
        }
        if name.startswith("samples/"):
            samples += pq.read_table(run / entry["path"], columns=["sample_id"])["sample_id"].to_pylist()
    whole: dict[str, Any] = {"sampling_key": manifest["sampling_key"], "origin": manifest["origin"], "tables": tables}
    whole |= {"samples": len(samples), "sample_ids": hashlib.sha256("\n".join(samples).encode()).hexdigest()}
    if (run / "dataset.json").exists():
        entry = json.loads((run / "dataset.json").read_text())
        whole |= {"dataset_key": entry["key"], "views": entry["facts"]["views"], "dataset": dataset_files(run)}
    return whole


def dataset_files(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of the Parquet files of a run's dataset, by path."""
    return {str(file.relative_to(folder)): sha256(file) for file in sorted(folder.glob("dataset/*/*/*.parquet"))}


def rows_digest(run: Path) -> str:
    """Return a hash of all samples of a run but for the column `source`, which holds the port of the server."""
    tables = [pq.read_table(file).drop_columns(["source"]) for file in sorted(run.glob("samples/*.parquet"))]
    return hashlib.sha256(json.dumps(pa.concat_tables(tables).to_pylist()).encode()).hexdigest()


def sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _steady(facts: Any) -> Any:
    if isinstance(facts, dict):
        kept = {name: value for name, value in facts.items() if name not in ("seconds", "known", "calibration")}
        return {name: _steady(value) for name, value in kept.items() if (name, value) != ("broken", 0)}
    return [_steady(value) for value in facts] if isinstance(facts, list) else facts


# -- inputs --------------------------------------------------------------------------------------------------------------


def write_inputs(folder: Path) -> None:
    """Write recipes, prompts, the answers of the replay engine and own samples."""
    for name, recipe in (("recipe", RECIPE), ("own", OWN), ("web", WEB)):
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False))
    (folder / "model").mkdir()
    (folder / "model" / "config.json").write_text('{"max_position_embeddings": 2048}\n')
    (folder / "model" / "tokenizer.json").write_text("{}\n")
    (folder / "model" / "model.safetensors").write_bytes(b"no weights")
    (folder / "model" / "chat_template.jinja").write_text("{{ messages }}\n")
    sums = [{"a": a, "b": b, "answer": a + b} for a, b in [(3, 4), (2, 5), (10, 7), (8, 9), (20, 1), (6, 6), (30, 12), (5, 0)]]
    sums += [{"a": 40, "b": 2, "answer": 42}, {"a": 11, "b": 8, "answer": 19}]
    prompts: dict[str, list[dict[str, Any]]] = {
        "sums": sums,
        "capitals": [{"country": country, "answer": capital} for country, capital in CAPITALS.items()],
        "opposites": [{"word": word, "answer": answer} for word, answer in OPPOSITES.items()],
        "votes": [{"kind": kind, "level": number} for number, kind in enumerate(VOTES)],
    }
    answers = []
    for family, rows in prompts.items():
        _write_lines(folder / f"{family}.jsonl", rows)
        for row in rows:
            draw = random.Random(f"{family} {json.dumps(row)}")
            for number in range(ANSWERS):
                asked, text, reason = _answer(family, row, number, draw)
                answers.append({"prompt": asked, "completion": text, "finish_reason": reason})
    _write_lines(folder / "answers.jsonl", answers)
    _write_lines(folder / "own.jsonl", list(_own_rows()))
    with (folder / "own.jsonl").open("a") as file:
        file.write('{"prompt": "What is 9 + 9?", "completion": \n')


def _answer(family: str, row: dict[str, Any], number: int, draw: random.Random) -> tuple[str, str, str]:
    """Prompt, completion and finish_reason; hard prompts are seldom answered well."""
    reason = "length" if draw.random() < 0.08 else "stop"
    well = draw.random() < draw.choice([0.35, 0.6, 0.9]) and row.get("answer") not in (5, "Lima", "thin")
    if family == "sums":
        a, b, c = row["a"], row["b"], row["answer"]
        right = [f"{c}", f"The answer is {c}.", f"\\boxed{{{c}}}", COUNTED.format(c=c), f"{a} + {b} = {c}"]
        right += [STORY.format(who=who, a=a, b=b, c=c) for who in ("Anna", "Berta", "Carl")]
        wrong = [f"The answer is {c + 1}.", f"\\boxed{{{c - 1}}}", "I do not know.", STORY.format(who="Anna", a=a, b=b, c=c + 10)]
        return f"What is {a} + {b}?", draw.choice(right if well else wrong), reason
    if family == "capitals":
        capital = row["answer"]
        right = [capital, f"{capital}.", f" {capital}!", capital.upper()]
        return (
            f"What is the capital of {row['country']}?",
            draw.choice(right if well else ["Rome", f"It is {capital}", "Bonn."]),
            reason,
        )
    if family == "opposites":
        right = [f"The opposite: {row['answer']}", f"Opposite: {row['answer']}, of course", f"I say: opposite: {row['answer']}"]
        wrong = [f"The opposite: un{row['word']}", "There is none.", f"Opposite: {row['word']}"]
        return f"What is the opposite of {row['word']}?", draw.choice(right if well else wrong), reason
    kinds = [row["kind"].removeprefix("a ").upper(), "something", "nothing at all", f"number {number}"]
    return f"Name {row['kind']}.", draw.choices(kinds, [6, 2, 1, 1])[0], reason


def _own_rows() -> Iterator[dict[str, Any]]:
    for a in range(1, 9):
        asked = {"prompt": f"What is {a} + {a}?", "reference": 2 * a, "family": "sums", "batch": a % 3}
        yield asked | {"completion": f"The answer is {2 * a}.", "finish_reason": "stop"}
        yield asked | {
            "completion": STORY.format(who="Dora", a=a, b=a, c=2 * a),
            "completion_ids": [a, 2, 3],
            "logprobs": [-1.0, -0.5, -0.25],
        }
        yield asked | {"completion": f"The answer is {2 * a + a % 2}.", "finish_reason": "stop"}
        yield asked | {"completion": COUNTED.format(c=a), "finish_reason": "length" if a % 4 == 0 else "stop"}
    yield {
        "prompt": [{"role": "user", "content": "Say something."}],
        "completion": [{"role": "assistant", "content": "Something."}],
    }
    yield {"prompt": "No completion here"}


def _write_lines(file: Path, rows: list[dict[str, Any]]) -> None:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))


# -- a server ------------------------------------------------------------------------------------------------------------


@contextmanager
def server() -> Iterator[str]:
    """Serve the model `small` as vLLM does on a free port, and yield the address. What it draws depends on the prompt, the
    temperature and the number of the choice only."""
    http = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    http.daemon_threads = True
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{http.server_port}/v1"
    finally:
        http.shutdown()
        thread.join()
        http.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        cards = [{"id": "small", "owned_by": "vllm", "max_model_len": 1000}]
        self._send({"version": "0.32.0"} if self.path == "/version" else {"data": cards})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self._send({"choices": [_choice(body, index) for index in range(body["n"])], "prompt_token_ids": [1, 2, 3]})

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name of the method it replaces
        return

    def _send(self, answer: dict[str, Any]) -> None:
        text = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)


def _choice(body: dict[str, Any], index: int) -> dict[str, Any]:
    """A choice of tokens 0 to 9, each equally likely; token 0 ends it."""
    draw = random.Random(json.dumps([body["messages"], body["temperature"], index]))
    tokens: list[int] = []
    while len(tokens) < (body.get("max_tokens") or body["max_completion_tokens"]) and tokens[-1:] != [0]:
        tokens.append(draw.randrange(10) if body["temperature"] else 7 - len(tokens))
    likely = [{"token": f"token_id:{token}", "logprob": -2.302585} for token in range(body.get("top_logprobs") or 0)]
    entries = [{"token": f"token_id:{token}", "logprob": -2.302585, "top_logprobs": likely} for token in tokens]
    return {
        "index": index,
        "finish_reason": "stop" if tokens[-1] == 0 else "length",
        "token_ids": tokens,
        "message": {"content": " ".join(map(str, tokens))},
        "logprobs": {"content": entries} if body.get("logprobs") else None,
    }


# -- runs ----------------------------------------------------------------------------------------------------------------


def command(*arguments: str) -> list[str]:
    """Return the command line of thresher, run by the code on PYTHONPATH."""
    return [sys.executable, "-c", "import sys; from thresher.cli import main; sys.exit(main())", *arguments]


def thresher(folder: Path, *arguments: str) -> None:
    subprocess.run(command(*arguments), cwd=folder, check=True, stdout=subprocess.DEVNULL)


def stop_midway(folder: Path, out: str) -> None:
    """Kill runs of the recipe until one leaves sampled shards and a journal with rows; then one shard loses its verdicts."""
    for _ in range(100):
        shutil.rmtree(folder / out, ignore_errors=True)
        process = subprocess.Popen(
            command("run", "recipe.yaml", "--out", out, "--no-prefect"), cwd=folder, stdout=subprocess.DEVNULL
        )
        while process.poll() is None and not (_journal_rows(folder / out) and _shards(folder / out, "samples") >= 2):
            time.sleep(0.001)
        if process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)
        process.wait()
        sampled, planned = (
            _shards(folder / out, "samples"),
            len(pq.ParquetFile(folder / out / "prompts.parquet").metadata.to_dict()["row_groups"]),
        )
        if _journal_rows(folder / out) and 2 <= sampled < planned:
            for name in ("verdicts/00001.json", "verdicts/00001.parquet"):
                (folder / out / name).unlink(missing_ok=True)
            for temporary in (folder / out).rglob(".*.tmp"):
                temporary.unlink()
            return
    raise SystemExit("no kill left a run as it is wanted")


def _shards(run: Path, folder: str) -> int:
    return len(list(run.glob(f"{folder}/*.json")))


def _journal_rows(run: Path) -> int:
    """Rows in journals of shards that are not finished."""
    rows = 0
    for file in run.glob("journal/*.arrows"):
        if (run / "samples" / f"{file.name.split('-')[0]}.json").exists():
            continue
        try:
            with pa.ipc.open_stream(pa.py_buffer(file.read_bytes())) as stream:
                for batch in stream:
                    rows += batch.num_rows
        except (OSError, pa.ArrowException, StopIteration):
            continue
    return rows


def make(folder: Path) -> dict[str, Any]:
    """Write everything into an empty folder; returns what expected.json holds."""
    write_inputs(folder)
    limits = [part for number in range(4) for part in ("--set", f"prompts.{number}.limit=3")]
    thresher(folder, "run", "recipe.yaml", *limits, "--salt", "first", "--out", "first", "--no-prefect")
    thresher(folder, "publish", "first", "--repo", "released")
    shutil.copytree(folder / "index", folder / "index_before")
    stop_midway(folder, "stopped")
    thresher(folder, "run", "recipe.yaml", "--out", "complete", "--no-prefect")
    thresher(folder, "publish", "complete", "--repo", "released")
    shutil.rmtree(folder / "first")
    thresher(folder, "filter", "own.yaml", "--samples", "own.jsonl", "--out", "own")
    with server() as url:
        changed = ["--set", f"engine.base_urls=[{url}]"]
        thresher(folder, "run", "web.yaml", *changed, "--out", "web", "--no-prefect")
        shutil.copytree(folder / "web", folder / "more")
        thresher(folder, "run", "web.yaml", *changed, "--set", MORE, "--out", "more", "--no-prefect")
    runs = {name: described(folder / name) for name in ("complete", "stopped", "own", "web")}
    more = described(folder / "more")
    expected = {
        "pyarrow": pa.__version__,
        "runs": runs,
        "more": {name: more[name] for name in ("samples", "sample_ids")} | {"rows": rows_digest(folder / "more")},
        "released": {str(file.relative_to(folder)): sha256(file) for file in sorted(folder.glob("released/*/*/*.parquet"))},
        "index": {str(file.relative_to(folder)): sha256(file) for file in sorted(folder.glob("index/**/*")) if file.is_file()},
    }
    shutil.rmtree(folder / "more")
    return expected


def _unsealed(text: str) -> str:
    """The text of run.json without the digest of its fields, one of which is another one now."""
    return json.dumps({key: value for key, value in json.loads(text).items() if key != "digest"}, indent=1, ensure_ascii=False)


def main() -> None:
    target = Path(sys.argv[1]).absolute()
    folder = Path(tempfile.mkdtemp(prefix="before-"))
    try:
        expected = make(folder)
        for file in folder.rglob("*.json"):
            text = file.read_text()
            if str(folder) in text:
                file.write_text(
                    _unsealed(text.replace(str(folder), PLACEHOLDER))
                    if file.name == "run.json"
                    else text.replace(str(folder), PLACEHOLDER)
                )
        # The keys of what is derived hold times, which a checkout changes; who wrote a run is nobody else's affair.
        for part in ("judged", "audited", "writer"):
            for extra in folder.glob(f"*/{part}"):
                shutil.rmtree(extra)
        (folder / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(folder, target)
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
