"""Studies for tests: measures written by hand, measures simulated from a known truth, and a small study's recipe and answers."""

import json
import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from schemas.sample import Message, Prompt
from thresher.cli import main
from thresher.study.measures import Measures
from thresher.study.prompt_variants import variants
from thresher.study.shard_measures import COUNTS, THIRDS

CHANGED = ("departed", "similarity", "judged", "passed", "known")
TEMPERATURES = (0.0, 0.3, 1.0, 1.5)
DRAWS = 8
"""Answers of each prompt in the table of `small_study`."""
COUNTRIES = {"France": "Paris", "Spain": "Madrid", "Japan": "Tokyo", "Italy": "Rome", "Chile": "Santiago", "Peru": "Lima",
    "Egypt": "Cairo", "Kenya": "Nairobi", "Cuba": "Havana", "Iran": "Tehran"}  # fmt: skip


def measures_of(prompts: int, temperatures: tuple[float, ...] = TEMPERATURES, draws: int = 16, **changed: Any) -> Measures:
    """Measures of draws that never passed or departed, except for the fields in `changed`; its counts are by name."""
    shape, volumes = (prompts, len(temperatures)), (1, 2, 4, 8, 16)
    counts = {name: np.zeros(shape) for name in COUNTS}
    for name, value in {"draws": draws, "judged": draws, "tokens": 10 * draws, "counted_nats": 10 * draws, "nats": 5 * draws,
        "compared": draws}.items():  # fmt: skip
        counts[name][:] = value
    fields: dict[str, Any] = {
        "prompts": tuple(map(str, range(prompts))),
        "families": np.array(["one"] * prompts),
        "temperatures": temperatures,
        "volumes": volumes,
        "unit": "tokens",
        "solutions": np.zeros((*shape, len(volumes))),
        "pass_at_k": np.zeros((*shape, len(volumes))),
        "entropy": np.zeros(shape),
        "thirds": np.zeros((*shape, THIRDS)),
        "changes": tuple(f"change {number}" for number in range(8)),
        "changed": dict.fromkeys(CHANGED, np.zeros((prompts, 8))),
    }
    return Measures(**{**fields, **changed, "counts": {**counts, **changed.get("counts", {})}})


def simulated_measures(
    prompts: int, seed: int, *, rate: Callable[[float], float], near: float = 0.2, moved: str = "with"
) -> Measures:
    """Measures drawn from a model with `rate(temperature)` solutions per draw, a share `near` of near misses among the draws that
    depart at low temperature, and changed prompts that move the answer `with` temperature, `against` it, or by `chance`."""
    generator = np.random.default_rng(seed)
    draws, shape = 16, (prompts, len(TEMPERATURES))
    counts = {name: np.zeros(shape) for name in ("departed", "departed_judged", "departed_near", "departed_passed", "passed")}
    ease = generator.beta(2, 2, prompts)
    for t, temperature in enumerate(TEMPERATURES):
        departing = 0.0 if temperature == 0 else 1 - math.exp(-temperature)
        departed = generator.binomial(draws, np.clip(departing * 2 * ease, 0, 1))
        counts["departed"][:, t] = counts["departed_judged"][:, t] = departed
        counts["departed_near"][:, t] = generator.binomial(departed, near if 0 < temperature < 0.5 else 0.2)
        counts["departed_passed"][:, t] = generator.binomial(departed, 0.3)
        counts["passed"][:, t] = generator.binomial(draws, np.full(prompts, 0.3))
    solutions = np.stack(
        [
            np.stack([generator.binomial(k, rate(temperature), prompts) for k in (1, 2, 4, 8, 16)], axis=-1)
            for temperature in TEMPERATURES
        ],
        axis=1,
    ).astype(float)
    chance = {"with": ease, "against": 1 - ease, "chance": generator.beta(2, 2, prompts)}[moved]
    moves = generator.binomial(1, chance[:, None], (prompts, 8)).astype(float)
    thirds = generator.multinomial(draws, [0.45, 0.1, 0.45], size=shape).astype(float)
    changed = dict.fromkeys(CHANGED, moves)
    return measures_of(prompts, counts=counts, solutions=solutions, thirds=thirds, changed=changed)


def small_study(recipe: Callable[..., Path]) -> Path:
    """Write a recipe of ten prompts, and a table of answers to them and to changed prompts, of which some are right."""
    path = recipe(dedupe={"within_prompt": 0.7}, near_miss={"common": 0.0})
    generator = random.Random(4)
    with (path.parent / "prompts.jsonl").open("w") as prompts, (path.parent / "answers.jsonl").open("w") as answers:
        for country, capital in COUNTRIES.items():
            prompts.write(json.dumps({"country": country, "answer": capital}) + "\n")
            question = Message("user", f"Capital of {country}?")
            changed = [variant.messages[-1] for _, variant in variants(Prompt("", "capital", (question,)))]
            for message in [question, *changed]:
                for _ in range(DRAWS):
                    text = generator.choice([capital, f" {capital}\n", "Lyon", "I do not know what it is", f"It is {capital}."])
                    reason = generator.choice(["stop", "stop", "length"])
                    row = {"prompt": message.content, "completion": text, "finish_reason": reason}
                    answers.write(json.dumps(row) + "\n")
    return path


def run_small_study(path: Path, *options: str) -> int:
    """Run `thresher study` on a recipe; the study is beside it."""
    return main(["study", str(path), "--out", str(path.parent / "study"), "--temperatures", "0,0.5,1,1.5", *options])
