"""Does diversity pay? Fine-tunes the study's model on what passed at temperature 1, and asks what each way of doing so brings.

Half of the prompts (by their hash) are held out. On the other half the model is trained with TRL, each time from the same
weights:

    one answer      one right answer of each prompt, the first by sample_id
    many answers    every distinct right answer
    near misses     after that, preference pairs: a near miss against the right answer it is nearest to (DPO)

The first two take the same number of steps, so that many answers are not more training. Then the held-out prompts are sampled at
temperature 1 by each model, and judged by the recipe's filters; what the model did before is known from the study's own draws.
Intervals are over the held-out prompts, and differences are those of pairs; that another seed of the training would give another
model is not in them. Everything is under OUT/training: what is there and was made from the same is not made again.
"""

import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from schemas.manifest import RunManifest
from schemas.recipe import PreferenceSpec, Recipe
from schemas.sample import Kind
from thresher import ids, models, pool, steps
from thresher.audit.statistics import of_k
from thresher.errors import EngineError, RecipeError
from thresher.opening import model_for
from thresher.pairs import preference
from thresher.progress import Progress
from thresher.prompts import plan
from thresher.recipes import Loaded
from thresher.store import Store
from thresher.study.findings import Figure, over_prompts
from thresher.views import said

STEPS, BATCH, RATE = 60, 4, 5e-5
PAIR_STEPS, PAIR_RATE, BETA = 30, 5e-6, 0.1
ARMS = ("one answer", "many answers", "near misses")
FEWEST = 8


@dataclass(frozen=True)
class Arm:
    """One way of training, and what the model does on the held-out prompts after it."""

    name: str
    rows: int
    steps: int
    pass_at_k: tuple[Figure, ...]
    gain: Figure | None
    """pass@1 after - before, of the same prompts."""
    distinct: Figure
    """Different texts among the right answers of a prompt."""


@dataclass(frozen=True)
class Training:
    """All of them; the first arm is the model as it was."""

    ks: tuple[int, ...]
    held_out: int
    trained_on: int
    samples: int
    settings: dict[str, Any]
    arms: tuple[Arm, ...]
    many_against_one: Figure
    """pass@1 of many answers - of one."""
    says: str

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)


def train(loaded: Loaded, out: str | Path, draws: Store, samples: int, *, steps_each: int = STEPS) -> Training:
    """Train and evaluate every arm. `out` is a local directory. Raises RecipeError where there is too little to train on or the
    model is not on this machine, EngineError where a training fails."""
    folder = Path(out) / "training"
    manifest = draws.manifest()
    assert manifest is not None
    model = model_for(loaded.recipe, loaded.base)
    if not model.path:
        raise RecipeError("--train: the model's weights are wanted here, and engine openai_http has them elsewhere")
    prompt_format = manifest.model["prompt_format"]
    held = {prompt.prompt_id for prompt in plan(loaded.recipe, loaded.base) if held_out(prompt.prompt_id)}
    answers, pairs = _material(draws, prompt_format)
    few = len({row["prompt_id"] for row in answers})
    if few < FEWEST or len(held) < FEWEST:
        raise RecipeError(
            f"--train: {few} prompts to train on have right answers at temperature 1, and {len(held)} are held out; wanted "
            f"{FEWEST} of each: take more prompts, more --samples, or an easier task"
        )
    first = list({row["prompt_id"]: row for row in sorted(answers, key=lambda row: row["sample_id"], reverse=True)}.values())
    jobs = [("one answer", "sft", first, model.path), ("many answers", "sft", answers, model.path)]
    if pairs:
        jobs.append(("near misses", "dpo", pairs, ""))
    found = [("before", 0, 0, _tally(draws, held))]
    trained = ""
    for name, kind, rows, start in jobs:
        count = steps_each if kind == "sft" else max(1, steps_each * PAIR_STEPS // STEPS)
        Progress().say(f"training on {name}: {len(rows)} rows, {count} steps")
        trained = _trained(folder / name.replace(" ", "_"), kind, rows, start or trained, count)
        tally = _sampled(loaded, folder / name.replace(" ", "_") / "held_out", trained, held=held, samples=samples)
        found.append((name, len(rows), count if kind == "sft" else steps_each + count, tally))
    return _compared(found, held=len(held), trained_on=few, samples=samples)


def held_out(prompt_id: str) -> bool:
    """Whether a prompt is held out: half of them are."""
    return int(ids.digest("held out", prompt_id)[:8], 16) % 2 == 0


# -- inside --------------------------------------------------------------------------------------------------------------

Rows = list[dict[str, Any]]
Tally = dict[str, tuple[int, int, int]]
"""By prompt: judged draws, draws that passed, different texts among those."""


def _material(draws: Store, prompt_format: str) -> tuple[Rows, Rows]:
    """Right answers and preference pairs, of draws at temperature 1 and prompts that are not held out."""
    answers: Rows = []
    pairs: Rows = []
    for shard in pool.each_judged(draws):
        ours = pa.array([not held_out(one) for one in shard["prompt_id"].to_pylist()])
        ones = pc.and_(pc.invert(shard["anchor"]), pc.equal(shard["temperature"], 1.0))
        some = shard.filter(pc.and_(ours, ones))
        right = some.filter(pc.is_in(some["kind"], pa.array([Kind.HIT.value, Kind.DUPLICATE.value])))
        seen: set[tuple[str, str]] = set()
        texts = pc.utf8_trim_whitespace(right["completion"]).to_pylist()
        table = right.select(["sample_id", "prompt_id"])
        for name, column in said(right, prompt_format).items():
            table = table.append_column(name, column)
        for row, text in zip(table.to_pylist(), texts, strict=True):
            if (row["prompt_id"], text) not in seen:
                seen.add((row["prompt_id"], text))
                answers.append(row)
        # A pair's right half may come from any temperature: it is the nearest right answer that is known.
        missed = pc.and_(ones, pc.equal(shard["kind"], Kind.NEAR_MISS.value))
        kept = shard.filter(pc.and_(ours, pc.or_(missed, pc.equal(shard["kind"], Kind.HIT.value))))
        pairs += preference(kept, prompt_format, PreferenceSpec()).select(["prompt", "chosen", "rejected"]).to_pylist()
    return answers, pairs


def _trained(folder: Path, kind: str, rows: Rows, start: str, count: int) -> str:
    """Train in a process of its own, unless that is done; returns the model's directory."""
    job = {"kind": kind, "model": start, "out": str(folder / "model"), "rows": str(folder / "rows.parquet"), "steps": count,
        "batch": BATCH, "rate": RATE if kind == "sft" else PAIR_RATE, "beta": BETA}  # fmt: skip
    key = ids.digest(job | {"rows": rows})
    done = folder / "done.json"
    if done.is_file() and json.loads(done.read_text())["key"] == key:
        return str(folder / "model")
    folder.mkdir(parents=True, exist_ok=True)
    done.unlink(missing_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), folder / "rows.parquet")
    (folder / "job.json").write_text(json.dumps(job, indent=1))
    ended = subprocess.run(
        [sys.executable, "-m", "thresher.study.trainer", str(folder / "job.json")], check=False, capture_output=True, text=True
    )
    (folder / "train.log").write_text(ended.stdout + ended.stderr)
    if ended.returncode and "No module named 'trl'" in ended.stderr:
        raise EngineError("--train: TRL is not installed; run `pip install 'thresher[train]'`")
    if ended.returncode:
        last = (ended.stderr.strip().splitlines() or ["no word"])[-1]
        raise EngineError(f"training failed: {last}; its log is {folder / 'train.log'}; the same command goes on from here")
    done.write_text(json.dumps({"key": key}))
    return str(folder / "model")


def _sampled(loaded: Loaded, out: Path, model: str, *, held: set[str], samples: int) -> Tally:
    """What a trained model does on the held-out prompts."""
    recipe = loaded.recipe
    changed = {
        "model": recipe.model.model_copy(update={"name": str(Path(model).absolute()), "revision": None}),
        "sampling": recipe.sampling.model_copy(
            update={
                **dict.fromkeys(("target_hits", "max_samples_per_prompt", "give_up_below", "target_rows")),
                "temperature": 1.0,
                "samples_per_prompt": samples,
                "anchor": False,
            }
        ),
        "dedupe": None,
        "near_miss": None,
        "run": recipe.run.model_copy(update={"salt": f"{recipe.run.salt} held out"}),
    }
    prompts = [prompt for prompt in plan(recipe, loaded.base) if prompt.prompt_id in held]
    made = Recipe.model_validate(recipe.model_copy(update=changed).model_dump())
    store = Store(out)
    before = store.manifest()
    if before is not None and _revision(before) != models.resolve(str(model), base=loaded.base).revision:
        shutil.rmtree(out)  # of a model that was trained otherwise
    begun = steps.begin(replace(loaded, recipe=made), out, prompts=prompts)
    if begun.missing:
        with Progress() as progress:
            steps.run(begun, progress)
    return _tally(Store(out), held)


def _revision(manifest: RunManifest) -> str | None:
    found: str | None = manifest.model["revision"]
    return found


def _tally(store: Store, held: set[str]) -> Tally:
    found: Tally = dict.fromkeys(sorted(held), (0, 0, 0))
    for shard in pool.each_judged(store, ["prompt_id", "anchor", "temperature", "completion", "error"]):
        rows = shard.filter(pc.and_(pc.invert(shard["anchor"]), pc.equal(shard["temperature"], 1.0)))
        rows = rows.filter(pc.not_equal(rows["outcome"], "undecided"))
        passed = pc.is_in(rows["kind"], pa.array([Kind.HIT.value, Kind.DUPLICATE.value]))
        table = pa.table({"prompt": rows["prompt_id"], "passed": passed, "text": pc.if_else(passed, rows["completion"], None)})
        for one in (
            table.group_by("prompt").aggregate([("passed", "count"), ("passed", "sum"), ("text", "count_distinct")]).to_pylist()
        ):
            if one["prompt"] in found:
                found[one["prompt"]] = (one["passed_count"], one["passed_sum"], one["text_count_distinct"])
    return found


def _compared(found: Sequence[tuple[str, int, int, Tally]], *, held: int, trained_on: int, samples: int) -> Training:
    ks = tuple(2**power for power in range(samples.bit_length()) if 2**power <= samples)[::2]
    prompts = sorted(found[0][3])
    first = _rates(found[0][3], prompts, 1)
    arms = [
        Arm(
            name,
            rows,
            count,
            tuple(over_prompts(_rates(tally, prompts, k)) for k in ks),
            None if tally is found[0][3] else over_prompts(_rates(tally, prompts, 1) - first),
            over_prompts(np.array([float(tally[prompt][2]) for prompt in prompts])),
        )
        for name, rows, count, tally in found
    ]
    tallies = {name: tally for name, _, _, tally in found}
    against = over_prompts(_rates(tallies[ARMS[1]], prompts, 1) - _rates(tallies[ARMS[0]], prompts, 1))
    settings = {"steps": found[1][2], "batch": BATCH, "learning_rate": RATE, "pair_learning_rate": PAIR_RATE, "beta": BETA}
    return Training(ks, held, trained_on, samples, settings, tuple(arms), against, _says(against))


def _rates(tally: Tally, prompts: Sequence[str], k: int) -> NDArray[np.float64]:
    """pass@k of each prompt (P,), NaN where fewer draws were judged."""
    n, c = (np.array([tally[prompt][at] for prompt in prompts]) for at in (0, 1))
    found = np.full(len(prompts), np.nan)
    found[n >= k] = of_k(n[n >= k], c[n >= k], k)
    return found


def _says(against: Figure) -> str:
    if against.value is None or against.interval is None:
        return "There is too little to tell many answers from one."
    low, high = (100 * bound for bound in against.interval)
    spread = f"{100 * against.value:+.1f} points of pass@1 ({low:+.1f} to {high:+.1f})"
    if low > 0:
        return f"Many answers of a prompt did better on held-out prompts than one: {spread}."
    if high < 0:
        return f"Many answers of a prompt did worse on held-out prompts than one: {spread}."
    return f"On held-out prompts many answers of a prompt cannot be told from one: {spread}."
