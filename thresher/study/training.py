"""Does diversity pay? Fine-tunes the model on what it got right at temperature 1, and asks what each way of doing so brings.

Half of the prompts of each family (by their hash) are held out. On the others the model is trained with TRL, each time from the
same weights:

    one answer      one right answer of each prompt, the first by sample_id
    many answers    every solution: of right answers that repeat each other the first by sample_id, as the view `sft` keeps one
    near misses     after that, preference pairs: a near miss against the right answer it is nearest to (DPO)

The first two take the same number of steps, so that many answers are not more training. Then the held-out prompts are sampled at
temperature 1 by each model, and judged by the recipe's filters; what the model did before is known from the study's own draws.
Intervals are over the held-out prompts, and differences are those of pairs; that another seed of the training would give another
model is not in them. Everything is under OUT/training: what is there and was made from the same is not made again. Nothing of it
is released.
"""

import importlib.util
import json
import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from schemas.dataset import PreferenceSpec
from schemas.manifest import RunManifest
from schemas.recipe import Recipe
from schemas.sample import Kind, Prompt
from thresher import ids
from thresher.audit.statistics import of_k
from thresher.dataset.preference_views import preference
from thresher.dataset.views import said
from thresher.errors import EngineError, RecipeError
from thresher.executors import open_executor
from thresher.inputs import models
from thresher.inputs.prompts import plan
from thresher.inputs.recipe_file import Loaded
from thresher.pool import judged as pool
from thresher.pool.store import Store
from thresher.run import steps
from thresher.run.open_run import model_for
from thresher.run.progress import Progress
from thresher.study.bootstrap import Figure, over_prompts
from thresher.study.draw_runs import judged
from thresher.study.measures import solution_of

STEPS, BATCH, RATE = 60, 4, 5e-5
PAIR_STEPS, PAIR_RATE, BETA = 30, 5e-6, 0.1
BEFORE, ONE, MANY, NEAR = ARMS = ("before", "one answer", "many answers", "near misses")
FEWEST = 8


@dataclass(frozen=True)
class Arm:
    """One way of training, and what the model does on the held-out prompts after it."""

    name: str
    rows: int
    steps: int
    pass_at_k: tuple[Figure, ...]
    distinct: Figure
    """Different texts among the right answers of a prompt."""


@dataclass(frozen=True)
class Difference:
    """What one way of training did beyond another, of the same prompts."""

    of: str
    less: str
    pass_at_k: tuple[Figure, ...]
    distinct: Figure


@dataclass(frozen=True)
class Training:
    """All of them; the first arm is the model as it was."""

    ks: tuple[int, ...]
    held_out: int
    trained_on: int
    samples: int
    settings: dict[str, Any]
    arms: tuple[Arm, ...]
    differences: tuple[Difference, ...]
    says: str

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)


def ready(loaded: Loaded) -> None:
    """See, before anything is drawn, that training can be done. Raises EngineError where TRL is not installed, RecipeError where
    the model is elsewhere or there are too few prompts."""
    if importlib.util.find_spec("trl") is None:
        raise EngineError("--train: TRL is not installed; run `pip install 'thresher[train]'`")
    if not model_for(loaded.recipe, loaded.base).path:
        raise RecipeError("--train: the model's weights are wanted here, and engine openai_http has them elsewhere")
    prompts = list(plan(loaded.recipe, loaded.base))
    held = held_out(prompts)
    if min(len(held), len(prompts) - len(held)) < FEWEST:
        raise RecipeError(
            f"--train: of {len(prompts)} prompts {len(held)} would be held out and {len(prompts) - len(held)} trained on; wanted "
            f"{FEWEST} of each: take more prompts"
        )


def train(loaded: Loaded, out: str | Path, draws: Store, samples: int, *, steps_each: int = STEPS) -> Training:
    """Train and evaluate every arm. `out` is a local directory. Raises what `ready` raises, RecipeError where too few prompts
    have a right answer to train on, EngineError where a training fails."""
    ready(loaded)
    folder = (Path(out) / "training").absolute()
    manifest = draws.manifest()
    assert manifest is not None
    model = model_for(loaded.recipe, loaded.base)
    held = held_out(plan(loaded.recipe, loaded.base))
    answers, pairs = _material(draws, manifest.model["prompt_format"], held)
    few = len({row["prompt_id"] for row in answers})
    if few < FEWEST:
        raise RecipeError(
            f"--train: {few} of the prompts that are not held out have a right answer at temperature 1; wanted {FEWEST}: take "
            "more --samples, or an easier task"
        )
    first = list({row["prompt_id"]: row for row in sorted(answers, key=lambda row: row["sample_id"], reverse=True)}.values())
    weights = _Weights(model.path, str(model.revision))
    jobs = [(ONE, "sft", first), (MANY, "sft", answers), *([(NEAR, "dpo", pairs)] if pairs else [])]
    found = [(BEFORE, 0, 0, _tally(draws, held))]
    trained = weights
    for name, kind, rows in jobs:
        count = steps_each if kind == "sft" else max(1, steps_each * PAIR_STEPS // STEPS)
        Progress().say(f"training on {name}: {len(rows)} rows, {count} steps")
        where = folder / name.replace(" ", "_")
        trained = _trained(where, kind, rows, weights if kind == "sft" else trained, count)
        tally = _sampled(loaded, where / "held_out", trained.path, held=held, samples=samples)
        found.append((name, len(rows), count if kind == "sft" else steps_each + count, tally))
    return _compared(found, held=len(held), trained_on=few, samples=samples)


def held_out(prompts: Iterable[Prompt]) -> set[str]:
    """Ids of the prompts that are held out: of each family the half with the smallest hashes."""
    order = sorted(prompts, key=lambda one: (one.family, ids.digest("held out", one.prompt_id)))
    families = (list(some) for _, some in groupby(order, key=lambda one: one.family))
    return {one.prompt_id for family in families for one in family[: len(family) // 2]}


# -- inside --------------------------------------------------------------------------------------------------------------

Rows = list[dict[str, Any]]
Tally = dict[str, tuple[int, int, int]]
"""By prompt: judged draws, draws that passed, different texts among those."""


@dataclass(frozen=True)
class _Weights:
    """A model on disk, and what it was made from."""

    path: str
    key: str


def _material(draws: Store, prompt_format: str, held: set[str]) -> tuple[Rows, Rows]:
    """Right answers, one of each solution, and preference pairs, of draws at temperature 1 and prompts that are not held out. The
    right half of a pair is the nearest right answer that was drawn at any temperature."""
    answers: Rows = []
    pairs: Rows = []
    for read in pool.each_judged(draws):
        text = read["completion"].combine_chunks().dictionary_encode().indices.to_numpy().astype(np.int64)
        shard = read.append_column("solution", pa.array(solution_of(read, text)))
        ours = pc.invert(pc.is_in(shard["prompt_id"], pa.array(sorted(held), pa.string())))
        ones = pc.and_(pc.invert(shard["anchor"]), pc.equal(shard["temperature"], 1.0))
        some = shard.filter(pc.and_(ours, ones))
        right = some.filter(pc.is_in(some["kind"], pa.array([Kind.HIT.value, Kind.DUPLICATE.value]))).sort_by("sample_id")
        table = right.select(["sample_id", "prompt_id", "solution"])
        for name, column in said(right, prompt_format).items():
            table = table.append_column(name, column)
        solutions = {(row["prompt_id"], row["solution"]): row for row in reversed(table.to_pylist())}
        answers += [{name: value for name, value in row.items() if name != "solution"} for row in reversed(solutions.values())]
        missed = pc.and_(ones, pc.equal(shard["kind"], Kind.NEAR_MISS.value))
        kept = shard.filter(pc.and_(ours, pc.or_(missed, pc.equal(shard["kind"], Kind.HIT.value))))
        pairs += preference(kept, prompt_format, PreferenceSpec()).select(["prompt", "chosen", "rejected"]).to_pylist()
    return answers, pairs


def _trained(folder: Path, kind: str, rows: Rows, start: _Weights, count: int) -> _Weights:
    """Train in a process of its own, unless that is done with these rows from these weights; returns the model."""
    job = {"kind": kind, "model": start.path, "out": str(folder / "model"), "rows": str(folder / "rows.parquet"), "steps": count,
        "batch": BATCH, "rate": RATE if kind == "sft" else PAIR_RATE, "beta": BETA}  # fmt: skip
    made = _Weights(str(folder / "model"), ids.digest(job | {"rows": rows, "from": start.key}))
    done = folder / "done.json"
    if done.is_file() and json.loads(done.read_text())["key"] == made.key:
        return made
    folder.mkdir(parents=True, exist_ok=True)
    done.unlink(missing_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), folder / "rows.parquet")
    (folder / "job.json").write_text(json.dumps(job, indent=1))
    ended = subprocess.run(
        [sys.executable, "-m", "thresher.study.trl_trainer", str(folder / "job.json")], check=False, capture_output=True, text=True
    )
    (folder / "train.log").write_text(ended.stdout + ended.stderr)
    if ended.returncode:
        last = (ended.stderr.strip().splitlines() or ["no word"])[-1]
        raise EngineError(f"training failed: {last}; its log is {folder / 'train.log'}; the same command goes on from here")
    done.write_text(json.dumps({"key": made.key}))
    return made


def _sampled(loaded: Loaded, out: Path, model: str, *, held: set[str], samples: int) -> Tally:
    """What a trained model does on the held-out prompts."""
    recipe = loaded.recipe
    changed = {
        "model": recipe.model.model_copy(update={"name": model, "revision": None}),
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
    if before is not None and _revision(before) != models.resolve(model, base=loaded.base).revision:
        shutil.rmtree(out)  # of a model that was trained otherwise
    begun = steps.begin(replace(loaded, recipe=made), out, prompts=prompts)
    with Progress() as progress, open_executor(made) as executor:
        judged(begun, None, progress, executor)
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
    tallies = {name: tally for name, _, _, tally in found}
    arms = [
        Arm(
            name, rows, count, tuple(over_prompts(_rates(tally, prompts, k)) for k in ks), over_prompts(_distinct(tally, prompts))
        )
        for name, rows, count, tally in found
    ]
    pairs = [(ONE, BEFORE), (MANY, BEFORE), (MANY, ONE), (NEAR, BEFORE), (NEAR, MANY)]
    differences = [
        Difference(
            of,
            less,
            tuple(over_prompts(_rates(tallies[of], prompts, k) - _rates(tallies[less], prompts, k)) for k in ks),
            over_prompts(_distinct(tallies[of], prompts) - _distinct(tallies[less], prompts)),
        )
        for of, less in pairs
        if of in tallies
    ]
    settings = {"steps": found[1][2], "batch": BATCH, "learning_rate": RATE, "pair_learning_rate": PAIR_RATE, "beta": BETA}
    (many,) = (one for one in differences if (one.of, one.less) == (MANY, ONE))
    return Training(ks, held, trained_on, samples, settings, tuple(arms), tuple(differences), _says(many))


def _rates(tally: Tally, prompts: Sequence[str], k: int) -> NDArray[np.float64]:
    """pass@k of each prompt (P,), NaN where fewer draws were judged."""
    n, c = (np.array([tally[prompt][at] for prompt in prompts]) for at in (0, 1))
    found = np.full(len(prompts), np.nan)
    found[n >= k] = of_k(n[n >= k], c[n >= k], k)
    return found


def _distinct(tally: Tally, prompts: Sequence[str]) -> NDArray[np.float64]:
    """Different right texts of each prompt (P,)."""
    return np.array([float(tally[prompt][2]) for prompt in prompts])


def _says(many: Difference) -> str:
    first, distinct = many.pass_at_k[0], many.distinct
    if first.value is None or first.interval is None or distinct.value is None or distinct.interval is None:
        return "There is too little to tell many answers from one."
    low, high = (100 * bound for bound in first.interval)
    spread = f"{100 * first.value:+.1f} points of pass@1 ({low:+.1f} to {high:+.1f})"
    different = (
        f"{distinct.value:+.2f} different right answers of a prompt ({distinct.interval[0]:+.2f} to {distinct.interval[1]:+.2f})"
    )
    if low > 0:
        return f"Many answers of a prompt did better on held-out prompts than one: {spread}; {different}."
    if high < 0:
        return f"Many answers of a prompt did worse on held-out prompts than one: {spread}; {different}."
    return f"By pass@1 on held-out prompts many answers of a prompt cannot be told from one: {spread}; {different}."
