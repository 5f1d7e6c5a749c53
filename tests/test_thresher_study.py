"""The temperature study: its estimators against other ways to them, its verdicts where the truth is known, and the command."""

import csv
import io
import itertools
import json
import math
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from schemas.sample import Message, Prompt
from thresher.cli import main
from thresher.errors import ThresherError
from thresher.store import Store
from thresher.study.drawing import VARIANT, Design, temperatures_of
from thresher.study.findings import FEWEST, _Look, findings, over_prompts, spearman
from thresher.study.measures import COUNTS, THIRDS, Measures, _chance, chao_shen, measure
from thresher.study.rewording import checked_wordings, variants

Write = Callable[..., Path]
ONE = 8


# -- what a command line says ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("0,0.5,1", (0, 0.5, 1)),
        ("0,0.1,...,1.5", tuple(number / 10 for number in range(16))),
        ("1", (1,)),
        ("0.2,0.4,...,1", (0.2, 0.4, 0.6, 0.8, 1)),
        ("0,...,1", None),
        ("warm", None),
        ("-1,1", None),
        ("0.5,0.4,...,0.1", None),
    ],
)
def test_temperatures(text: str, found: tuple[float, ...] | None) -> None:
    if found is None:
        with pytest.raises(ThresherError, match="--temperatures"):
            temperatures_of(text)
    else:
        assert temperatures_of(text) == pytest.approx(found)


@pytest.mark.parametrize("temperatures", [(0.0, 0.5), (1.0,), (0.0, 1.0), (0.5, 0.5, 1.0)])
def test_a_design_compares_with_temperature_1(temperatures: tuple[float, ...]) -> None:
    with pytest.raises(ThresherError, match="wanted 1 and at least one other"):
        Design(temperatures)


# -- changed prompts ------------------------------------------------------------------------------------------------------


def test_changes_keep_what_is_asked() -> None:
    """White space is changed in the last turn only, words round every user's turn, and worked examples are only reordered."""
    turns = [
        ("user", "one"),
        ("assistant", "ONE"),
        ("user", "two"),
        ("assistant", "TWO"),
        ("user", "three"),
        ("assistant", "THREE"),
    ]
    messages = (Message("system", "Shout."), *(Message(*turn) for turn in turns), Message("user", "four"))
    prompt = Prompt("id", "upper", messages, "FOUR")
    found = dict(variants(prompt, ("Say {} aloud",)))
    assert set(found) == {
        "whitespace: newline_after", "whitespace: space_before", "whitespace: spaces_after", "wording: Say {} aloud",
        "order: reversed", "order: rotated",
    }  # fmt: skip
    assert {one.prompt_id for one in found.values()}.isdisjoint({"id"})
    assert len({one.prompt_id for one in found.values()}) == len(found)
    for name, one in found.items():
        assert (one.reference, one.family, one.messages[0]) == ("FOUR", "upper", messages[0])
        assert Counter(turn.role for turn in one.messages) == Counter(turn.role for turn in messages)
        words = " ".join(turn.content for turn in one.messages).replace("Say ", "").replace(" aloud", "").split()
        assert Counter(words) == Counter(" ".join(turn.content for turn in messages).split()), name
    reversed_ = found["order: reversed"].messages
    assert [turn.content for turn in reversed_] == ["Shout.", "three", "THREE", "two", "TWO", "one", "ONE", "four"]
    assert [turn.content for turn in found["wording: Say {} aloud"].messages][1:3] == ["Say one aloud", "ONE"]
    assert "order: reversed" not in dict(variants(replace(prompt, messages=messages[-1:])))
    with pytest.raises(ThresherError, match="where the user's text goes"):
        checked_wordings(["Please"])


# -- estimators -----------------------------------------------------------------------------------------------------------


def test_entropy_is_chao_and_shens() -> None:
    """The same as their formula in a loop, and nearer to the truth than the entropy of the shares seen."""

    def by_hand(counts: list[int]) -> float:
        n, singles = sum(counts), sum(one == 1 for one in counts)
        singles = n - 1 if singles == n else singles
        coverage = 1 - singles / n if n > 1 else 1.0
        shares = [coverage * one / n for one in counts]
        return -sum(p * math.log(p) / (1 - (1 - p) ** n) for p in shares if p < 1)

    shares = 1 / np.arange(1, 41)
    shares /= shares.sum()
    truth, generator = float(-(shares * np.log(shares)).sum()), np.random.default_rng(1)
    plain, found = [], []
    for _ in range(400):
        counts = generator.multinomial(24, shares)
        counts = counts[counts > 0]
        (estimate,) = chao_shen(counts, np.zeros(len(counts), int), 1)
        assert estimate == pytest.approx(by_hand(counts.tolist()))
        found.append(estimate)
        plain.append(float(-(counts / 24 * np.log(counts / 24)).sum()))
    assert abs(np.mean(found) - truth) < 0.35 * abs(np.mean(plain) - truth)
    cells = chao_shen(np.array([3, 1, 5]), np.array([0, 0, 2]), 4)
    assert cells.tolist() == pytest.approx([by_hand([3, 1]), 0, 0, 0])


def test_solutions_of_fewer_draws_are_what_subsets_have() -> None:
    """Against the mean over every subset of k of 7 draws, which gave solution 0 three times, 1 twice and nothing right twice."""
    draws = [0, 0, 0, 1, 1, None, None]
    for k in range(1, 8):
        subsets = [len(set(some) - {None}) for some in itertools.combinations(draws, k)]
        each = _chance(np.array([7, 7]), np.array([3, 2]), np.array([k, k]))
        assert each.sum() == pytest.approx(np.mean(subsets))


def test_rank_correlation_shares_ranks() -> None:
    """Against ranks worked out by counting."""
    generator = random.Random(2)
    for _ in range(50):
        x, y = ([generator.randrange(4) for _ in range(12)] for _ in range(2))

        def ranks(values: list[int]) -> list[float]:
            return [sum(other < one for other in values) + (values.count(one) + 1) / 2 for one in values]

        if len(set(x)) > 1 and len(set(y)) > 1:
            wanted = np.corrcoef(ranks(x), ranks(y))[0, 1]
            assert spearman(np.array(x, float), np.array(y, float)) == pytest.approx(wanted)
    assert math.isnan(spearman(np.zeros(3), np.arange(3.0)))


@pytest.mark.slow
def test_the_interval_of_a_mean_over_prompts_covers_it() -> None:
    """40 prompts with rates of their own, 600 times: between 92 and 98 % of the intervals hold the true mean."""
    generator = np.random.default_rng(3)
    inside = 0
    for number in range(600):
        found = over_prompts(generator.beta(0.5, 1.5, 40), seed=number)
        assert found.interval is not None
        inside += found.interval[0] <= 0.25 <= found.interval[1]
    assert 0.92 < inside / 600 < 0.98


# -- verdicts where the truth is known --------------------------------------------------------------------------------------


def made(prompts: int, seed: int, *, rate: Callable[[float], float], near: float = 0.2, moved: str = "with") -> Measures:
    """Measures drawn from a model with `rate(temperature)` solutions per draw, a share `near` of low departures near misses, and
    changed prompts that move the answer `with` temperature, `against` it, or by `chance`."""
    generator = np.random.default_rng(seed)
    heats, draws = (0.0, 0.3, 1.0, 1.5), 16
    shape = (prompts, len(heats))
    counts = {name: np.zeros(shape) for name in COUNTS}
    ease = generator.beta(2, 2, prompts)
    counts["draws"][:], counts["tokens"][:] = draws, 10 * draws
    counts["judged"][:], counts["counted_nats"][:], counts["nats"][:] = draws, 10 * draws, 5 * draws
    for at, heat in enumerate(heats):
        departing = 0.0 if heat == 0 else 1 - math.exp(-heat)
        counts["departed"][:, at] = generator.binomial(draws, np.clip(departing * 2 * ease, 0, 1))
        counts["departed_judged"][:, at] = counts["departed"][:, at]
        counts["departed_near"][:, at] = generator.binomial(
            counts["departed"][:, at].astype(int), near if 0 < heat < 0.5 else 0.2
        )
        counts["departed_passed"][:, at] = generator.binomial(counts["departed"][:, at].astype(int), 0.3)
        counts["passed"][:, at] = generator.binomial(draws, np.full(prompts, 0.3))
    volumes = (1, 2, 4, 8, 16)
    solutions = np.stack(
        [np.stack([generator.binomial(k, rate(heat), prompts) for k in volumes], axis=-1) for heat in heats], axis=1
    ).astype(float)
    chance = {"with": ease, "against": 1 - ease, "chance": generator.beta(2, 2, prompts)}[moved]
    departed = generator.binomial(1, chance[:, None], (prompts, 8)).astype(float)
    changed = {name: departed.copy() for name in ("departed", "similarity", "judged", "passed", "known")}
    thirds = generator.multinomial(draws, [0.45, 0.1, 0.45], size=shape).astype(float)
    assert thirds.shape == (*shape, THIRDS)
    return Measures(
        tuple(map(str, range(prompts))), np.array(["one"] * prompts), heats, volumes, "tokens", counts, solutions,
        np.zeros((*shape, len(volumes))), np.zeros(shape), thirds, tuple(f"change {at}" for at in range(8)), changed,
    )  # fmt: skip


def verdicts(found: Measures) -> dict[str, str]:
    return {one.name: one.verdict for one in findings(found).hypotheses}


def test_hypotheses_are_found_where_they_are_true_and_refuted_where_they_are_not() -> None:
    peak = verdicts(made(60, 1, rate=lambda heat: 0.5 if heat == 1 else 0.2, near=0.6))
    assert peak == {
        "bimodal": "supported",
        "valley": "supported",
        "narrow": "open",
        "rewording": "supported",
        "yield": "supported",
    }
    cool = findings(made(60, 2, rate=lambda heat: 0.5 if heat == 0.3 else 0.2, near=0.02, moved="against"))
    assert {one.name: one.verdict for one in cool.hypotheses} == {
        "bimodal": "supported", "valley": "refuted", "narrow": "open", "rewording": "refuted", "yield": "refuted",
    }  # fmt: skip
    assert cool.recommended["sampling.temperature"] == 0.3
    assert "0.3 (31" in next(one.remark for one in cool.hypotheses if one.name == "yield") or cool.reason.startswith(
        "temperature 0.3"
    )


@pytest.mark.slow
def test_hypotheses_are_seldom_judged_where_there_is_nothing() -> None:
    """Of 60 studies of a model in which temperature changes nothing, at most 8 say anything of valley, rewording or yield (3 are
    meant to)."""
    looks = (_Look(made(30, seed, rate=lambda heat: 0.3, moved="chance"), "one", np.arange(30), seed) for seed in range(60))
    judged = (one.name for look in looks for one in look.hypotheses() if one.verdict != "open")
    found = Counter(name for name in judged if name in {"valley", "rewording", "yield"})
    assert max(found.values(), default=0) <= 8


def test_too_few_prompts_are_not_judged() -> None:
    found = findings(made(FEWEST - 1, 1, rate=lambda heat: 0.9 if heat == 1 else 0.0, near=0.9))
    assert {one.verdict for one in found.hypotheses} == {"open"}
    (one,) = {one.prompts for one in findings(made(1, 1, rate=lambda heat: 0.5)).temperatures}
    assert one == 1
    assert all(one.failure.interval is None for one in findings(made(1, 1, rate=lambda heat: 0.5)).temperatures)


# -- the whole ------------------------------------------------------------------------------------------------------------

COUNTRIES = {"France": "Paris", "Spain": "Madrid", "Japan": "Tokyo", "Italy": "Rome", "Chile": "Santiago", "Peru": "Lima",
    "Egypt": "Cairo", "Kenya": "Nairobi", "Cuba": "Havana", "Iran": "Tehran"}  # fmt: skip


@pytest.fixture
def asked(recipe: Write, tmp_path: Path) -> Path:
    """Ten prompts whose answers, from a table, are right in half of the draws; changed prompts have answers of their own."""
    path = recipe(dedupe={"within_prompt": 0.7}, near_miss={"common": 0.0})
    generator = random.Random(4)
    with (tmp_path / "prompts.jsonl").open("w") as prompts, (tmp_path / "answers.jsonl").open("w") as answers:
        for country, capital in COUNTRIES.items():
            prompts.write(json.dumps({"country": country, "answer": capital}) + "\n")
            asked = Message("user", f"Capital of {country}?")
            for one in [asked, *(made.messages[-1] for _, made in variants(Prompt("", "capital", (asked,))))]:
                for _ in range(ONE):
                    text = generator.choice([capital, f" {capital}\n", "Lyon", "I do not know what it is", f"It is {capital}."])
                    row = {
                        "prompt": one.content,
                        "completion": text,
                        "finish_reason": generator.choice(["stop", "stop", "length"]),
                    }
                    answers.write(json.dumps(row) + "\n")
    return path


def study(path: Path, *more: str) -> int:
    return main(["study", str(path), "--out", str(path.parent / "study"), "--temperatures", "0,0.5,1,1.5", *more])


@pytest.mark.slow
def test_a_study_from_its_recipe_to_its_page(asked: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What is printed, study.json and the page; a second call draws nothing, more samples only the further ones."""
    assert study(asked, "--samples", str(ONE)) == 0
    shown = capsys.readouterr().out
    assert "recommended: --set sampling.temperature=" in shown
    out = asked.parent / "study"
    found = json.loads((out / "study.json").read_text())
    assert {one["verdict"] for one in found["hypotheses"]} <= {"supported", "refuted", "open"}
    assert [one["temperature"] for one in found["temperatures"]] == [0, 0.5, 1, 1.5]
    assert [one["draws"] for one in found["temperatures"]] == [10, 80, 80, 80]
    page = (out / "study.html").read_text()
    assert "temperature study" in page
    assert "https://" not in page.split("<script")[0]
    entries = {file.name: file.stat().st_mtime_ns for file in (out / "draws" / "samples").glob("*.parquet")}
    assert study(asked, "--samples", str(ONE), "--json") == 0
    again = json.loads(capsys.readouterr().out)
    assert again["hypotheses"] == found["hypotheses"]
    assert {file.name: file.stat().st_mtime_ns for file in (out / "draws" / "samples").glob("*.parquet")} == entries
    assert study(asked, "--samples", str(ONE + 2), "--csv") == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [int(row["draws"]) for row in rows] == [10, 100, 100, 100]


@pytest.mark.slow
def test_measures_are_those_of_a_loop(asked: Path) -> None:
    """Every sum of the draws, counted over plain rows."""
    from thresher import pool

    assert study(asked, "--samples", str(ONE)) == 0
    store = Store(asked.parent / "study" / "draws")
    found = measure(store, Store(asked.parent / "study" / "variants"))
    wanted: dict[str, Counter[tuple[str, float]]] = {name: Counter() for name in COUNTS}
    solutions: dict[tuple[str, float], Counter[str]] = {}
    for shard in pool.each_judged(store):
        rows = shard.to_pylist()
        greedy = {row["prompt_id"]: row["completion"] for row in rows if row["anchor"]}
        texts = {row["sample_id"]: row["completion"] for row in rows}
        for row in rows:
            cell = row["prompt_id"], 0.0 if row["anchor"] else row["temperature"]
            departed, passed = row["completion"] != greedy[row["prompt_id"]], row["kind"] in {"hit", "duplicate"}
            near, judged = row["kind"] == "near_miss", row["outcome"] != "undecided"
            said = {"draws": 1, "judged": judged, "passed": passed, "near": near, "departed": departed,
                "departed_judged": departed and judged, "departed_passed": departed and passed,
                "departed_near": departed and near,
                "truncated": row["finish_reason"] == "length", "tokens": len(row["completion"])}  # fmt: skip
            for name, value in said.items():
                wanted[name][cell] += value
            if passed:
                solutions.setdefault(cell, Counter())[
                    texts[row["nearest"]] if row["kind"] == "duplicate" else row["completion"]
                ] += 1
    for name in set(COUNTS) - {"incoherent", "nats", "counted_nats"}:
        for row, prompt in enumerate(found.prompts):
            for at, heat in enumerate(found.temperatures):
                assert found.counts[name][row, at] == wanted[name][prompt, heat], (name, prompt, heat)
    for row, prompt in enumerate(found.prompts):
        for at, heat in enumerate(found.temperatures):
            assert found.solutions[row, at, -1] == pytest.approx(len(solutions.get((prompt, heat), {})))
    assert found.counts["near"].sum() > 0
    assert np.isfinite(found.changed["departed"]).all()
    assert 0 < found.changed["departed"].mean() < 1
    for shard in pool.each_judged(Store(asked.parent / "study" / "variants")):
        assert all(row["anchor"] and VARIANT in row["metadata"] for row in shard.to_pylist())


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["nothing right", "no references", "one prompt"])
def test_a_study_says_what_is_missing(asked: Path, fault: str, capsys: pytest.CaptureFixture[str]) -> None:
    folder = asked.parent
    if fault == "nothing right":
        rows = [json.loads(line) | {"completion": "no idea"} for line in (folder / "answers.jsonl").read_text().splitlines()]
        (folder / "answers.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    more = {"no references": ["--set", "prompts.0.reference=null"], "one prompt": ["--set", "prompts.0.limit=1"]}.get(fault, [])
    assert study(asked, "--samples", "4", *more) == 0
    page = (folder / "study" / "study.html").read_text()
    wanted = {
        "nothing right": "Nothing passed at any temperature",
        "no references": "of the draws could not be judged",
        "one prompt": "There is one prompt",
    }[fault]
    assert wanted in page
    found = json.loads((folder / "study" / "study.json").read_text())
    assert {one["verdict"] for one in found["hypotheses"]} == {"open"}
    assert "recommended" in capsys.readouterr().out


def test_anchors_alone_want_anchors(recipe: Write, capsys: pytest.CaptureFixture[str]) -> None:
    """samples_per_prompt 0 draws greedy answers only, and is refused without them."""
    path = recipe(sampling={"samples_per_prompt": 0, "max_tokens": 16})
    assert main(["run", str(path), "--out", str(path.parent / "run"), "--no-prefect"]) == 0
    assert "0 samples" in capsys.readouterr().out
    path = recipe(sampling={"samples_per_prompt": 0, "max_tokens": 16, "anchor": False})
    assert main(["check", str(path)]) == 1
    assert "draws the anchors alone" in capsys.readouterr().err


@pytest.mark.slow
def test_training_compares_models_on_prompts_they_have_not_seen(recipe: Write, tmp_path: Path) -> None:
    """One step of TRL for each way of training, on a tiny Llama; the answers to held-out prompts come from a table, so that every
    model does as well as the one before it, and the differences are nothing."""
    program = f"""
import runpy, sys
tiny = runpy.run_path({str(Path(__file__).with_name("train_two_steps.py"))!r})
from transformers import LlamaConfig, LlamaForCausalLM
tokenizer = tiny["bytes_tokenizer"]()
shape = dict(hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=2)
model = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), pad_token_id=0, eos_token_id=0, bos_token_id=0, **shape))
model.save_pretrained(sys.argv[1]); tokenizer.save_pretrained(sys.argv[1])
"""
    subprocess.run([sys.executable, "-c", program, str(tmp_path / "tiny")], check=True, capture_output=True)
    path = recipe(
        model={"name": "tiny"},
        prompts=[{"family": "sum", "source": {"kind": "grid", "fields": {"a": [*range(8)], "b": [*range(8)]}},
            "template": "What is {{ a }} and {{ b }}?", "reference_template": "{{ a + b }}"}],
        dedupe={"within_prompt": 0.7},
        near_miss={"common": 0.0},
    )  # fmt: skip
    rows: list[dict[str, Any]] = []
    for a, b in itertools.product(range(8), repeat=2):
        asked = Message("user", f"What is {a} and {b}?")
        for one in [asked, *(made.messages[-1] for _, made in variants(Prompt("", "sum", (asked,)), ("Please: {}",)))]:
            texts = (f"{a + b}", f"{a + b} ", f"{a + b + 1}", "I cannot tell")
            rows += [{"prompt": one.content, "completion": text, "finish_reason": "stop"} for text in texts]
    (tmp_path / "answers.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert study(path, "--samples", "4", "--wording", "Please: {}", "--train", "--steps", "1") == 0
    found = json.loads((tmp_path / "study" / "study.json").read_text())["training"]
    assert [arm["name"] for arm in found["arms"]] == ["before", "one answer", "many answers", "near misses"]
    before, one_each, many, near = found["arms"]
    assert before["pass_at_k"][0]["value"] == 0.5
    assert one_each["gain"] == many["gain"] == near["gain"] == {"value": 0.0, "interval": [0.0, 0.0]}
    assert one_each["rows"] == found["trained_on"] == 64 - found["held_out"]
    assert 16 < found["held_out"] < 48
    models = [tmp_path / "study" / "training" / name / "model" / "model.safetensors" for name in ("one_answer", "many_answers")]
    assert all(file.is_file() for file in models)
    stamps = [file.stat().st_mtime_ns for file in models]
    assert study(path, "--samples", "4", "--wording", "Please: {}", "--train", "--steps", "1") == 0
    assert [file.stat().st_mtime_ns for file in models] == stamps
    assert "Diversity pays?" in (tmp_path / "study" / "study.html").read_text()
