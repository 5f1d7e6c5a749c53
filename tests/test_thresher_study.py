"""The temperature study: its estimators against other ways to them, its verdicts where the truth is known, and the command."""

import csv
import io
import itertools
import json
import math
import random
import re
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from helpers import FOLDER
from schemas.sample import Message, Prompt
from thresher.cli import main
from thresher.errors import ThresherError
from thresher.pool.store import Store
from thresher.study.draw_runs import VARIANT, Design, temperatures_of
from thresher.study.bootstrap import Look, over_prompts, spearman
from thresher.study.results import findings
from thresher.study.hypotheses import FEWEST, bimodal, hypotheses, recommended, valley
from thresher.study.measures import COUNTS, THIRDS, Measures, _chance, _masses, chao_shen, measure
from thresher.study.prompt_variants import checked_wordings, variants

Write = Callable[..., Path]
ONE = 8
CHANGED = ("departed", "similarity", "judged", "passed", "known")


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
        ("0.5,0.6,...,0.1", None),
        ("0,0.1,...,abc", None),
        ("0,0.1,...,", None),
        ("0,0.1,...,nan", None),
        ("0,0.1,...,inf", None),
        ("0,0.1,...,2e9", None),
        ("0,0.001,...,1", None),
        ("0,0.3,...,1", None),
        ("0,0.1,...,1,1.5", None),
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


def measures(prompts: int, heats: tuple[float, ...] = (0.0, 0.3, 1.0, 1.5), draws: int = 16, **given: Any) -> Measures:
    """Measures of nothing, but for what is given; counts by name."""
    shape, volumes = (prompts, len(heats)), (1, 2, 4, 8, 16)
    counts = {name: np.zeros(shape) for name in COUNTS}
    for name, value in {"draws": draws, "judged": draws, "tokens": 10 * draws, "counted_nats": 10 * draws, "nats": 5 * draws,
        "compared": draws}.items():  # fmt: skip
        counts[name][:] = value
    blank = np.zeros((prompts, 8))
    fields: dict[str, Any] = {
        "prompts": tuple(map(str, range(prompts))),
        "families": np.array(["one"] * prompts),
        "temperatures": heats,
        "volumes": volumes,
        "unit": "tokens",
        "solutions": np.zeros((*shape, len(volumes))),
        "pass_at_k": np.zeros((*shape, len(volumes))),
        "entropy": np.zeros(shape),
        "thirds": np.zeros((*shape, THIRDS)),
        "changes": tuple(f"change {at}" for at in range(8)),
        "changed": dict.fromkeys(CHANGED, blank),
    }
    return Measures(**{**fields, **given, "counts": {**counts, **given.get("counts", {})}})


def made(prompts: int, seed: int, *, rate: Callable[[float], float], near: float = 0.2, moved: str = "with") -> Measures:
    """Measures drawn from a model with `rate(temperature)` solutions per draw, a share `near` of low departures near misses, and
    changed prompts that move the answer `with` temperature, `against` it, or by `chance`."""
    generator = np.random.default_rng(seed)
    heats, draws = (0.0, 0.3, 1.0, 1.5), 16
    shape = (prompts, len(heats))
    counts = {name: np.zeros(shape) for name in ("departed", "departed_judged", "departed_near", "departed_passed", "passed")}
    ease = generator.beta(2, 2, prompts)
    for at, heat in enumerate(heats):
        departing = 0.0 if heat == 0 else 1 - math.exp(-heat)
        counts["departed"][:, at] = generator.binomial(draws, np.clip(departing * 2 * ease, 0, 1))
        counts["departed_judged"][:, at] = counts["departed"][:, at]
        counts["departed_near"][:, at] = generator.binomial(
            counts["departed"][:, at].astype(int), near if 0 < heat < 0.5 else 0.2
        )
        counts["departed_passed"][:, at] = generator.binomial(counts["departed"][:, at].astype(int), 0.3)
        counts["passed"][:, at] = generator.binomial(draws, np.full(prompts, 0.3))
    solutions = np.stack(
        [np.stack([generator.binomial(k, rate(heat), prompts) for k in (1, 2, 4, 8, 16)], axis=-1) for heat in heats], axis=1
    ).astype(float)
    chance = {"with": ease, "against": 1 - ease, "chance": generator.beta(2, 2, prompts)}[moved]
    departed = generator.binomial(1, chance[:, None], (prompts, 8)).astype(float)
    changed = dict.fromkeys(CHANGED, departed)
    thirds = generator.multinomial(draws, [0.45, 0.1, 0.45], size=shape).astype(float)
    return measures(prompts, heats, draws, counts=counts, solutions=solutions, thirds=thirds, changed=changed)


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
    assert cool.recommended["sampling.calibration.expect"] == "declared"
    mine = next(one for one in cool.hypotheses if one.name == "yield")
    assert mine.statistic.endswith("at 1 - the same at 0.3")
    assert "better than 1: 0.3" in mine.remark
    assert mine.interval[1] < 0
    assert mine.level == pytest.approx(1 - 0.05 / 2)


@pytest.mark.slow
def test_hypotheses_are_seldom_judged_where_there_is_nothing() -> None:
    """Of 80 studies of a model in which temperature changes nothing, at most 10 say anything of one (4 are meant to)."""
    found: Counter[str] = Counter()
    for seed in range(80):
        generator = np.random.default_rng(seed)
        flat = generator.multinomial(16, [1 / 3] * 3, size=(30, 4)).astype(float)
        model = replace(made(30, seed, rate=lambda heat: 0.3, moved="chance"), thirds=flat)
        found.update(one.name for one in hypotheses(Look(model, "one", np.arange(30), seed)) if one.verdict != "open")
    assert max(found.values(), default=0) <= 10, found


def of_low_and_one(seed: int, prompts: int, *, corrected: bool) -> Measures:
    """A model whose departing draws are near misses with a chance of each prompt's own, the same at every temperature. Prompts
    that depart at low temperatures have other chances than those that depart at 1: `corrected` or not, pooled shares differ."""
    generator = np.random.default_rng(seed)
    heats, draws = (0.0, 0.1, 0.2, 0.4, 1.0, 1.5), 16
    chance = generator.beta(0.5, 1.0, prompts)
    near = np.sort(generator.beta(0.3, 1.2, prompts))
    near = near[::-1][np.argsort(np.argsort(chance))] if corrected else generator.permutation(near)
    counts = {name: np.zeros((prompts, len(heats))) for name in ("departed", "departed_judged", "departed_near", "passed")}
    for at, heat in enumerate(heats[1:], start=1):
        departed = generator.binomial(draws, np.clip(chance ** (1 / heat), 0, 1))
        counts["departed"][:, at] = counts["departed_judged"][:, at] = departed
        counts["departed_near"][:, at] = generator.binomial(departed, near)
    counts["passed"][:] = 1
    return measures(prompts, heats, draws, counts=counts)


@pytest.mark.slow
@pytest.mark.parametrize("corrected", [False, True])
def test_valley_compares_within_prompts(corrected: bool) -> None:
    """The prompts that depart just above 0 are not those that depart at 1. Pooled shares differ then though in no prompt anything
    does: of 120 such studies at most 13 say anything (6 are meant to)."""
    found, pooled = Counter[str](), []
    for seed in range(120):
        model = of_low_and_one(seed, 80, corrected=corrected)
        look = Look(model, "one", np.arange(80), seed)
        found.update([valley(look)[0].verdict])
        near, departed = (model.counts[name] for name in ("departed_near", "departed_judged"))
        pooled.append(near[:, 1:4].sum() / departed[:, 1:4].sum() - near[:, 4].sum() / departed[:, 4].sum())
    assert found["open"] >= 107, found
    assert (np.mean(pooled) < -0.02) == corrected


def test_valley_is_mantel_and_haenszels_difference() -> None:
    """Worked out for one study, a prompt at a time."""
    model = of_low_and_one(1, 40, corrected=True)
    found = valley(Look(model, "one", np.arange(40), 1))[0]
    above = below = 0.0
    for near, departed in zip(model.counts["departed_near"], model.counts["departed_judged"], strict=True):
        n, m = departed[1:4].sum(), departed[4]
        if n and m:
            above += n * m / (n + m) * (near[1:4].sum() / n - near[4] / m)
            below += n * m / (n + m)
    assert found.value == pytest.approx(above / below)


def test_one_draw_judges_nothing() -> None:
    """A single draw that departs at a low temperature is one prompt's word, however many prompts depart at 1."""
    counts = {name: np.zeros((30, 4)) for name in ("departed", "departed_judged", "departed_near", "departed_passed", "passed")}
    counts["departed"][:, 2] = counts["departed_judged"][:, 2] = 10
    counts["departed_near"][:, 2], counts["passed"][:] = 2, 1
    for name in ("departed", "departed_judged", "departed_near"):
        counts[name][0, 1] = 1
    found = {one.name: one for one in findings(measures(30, counts=counts)).hypotheses}
    assert {found[name].verdict for name in ("valley", "narrow")} == {"open"}
    assert "1 prompts with 1 departing draws" in found["valley"].remark


def test_thirds_are_even_where_every_number_of_edits_is_as_likely() -> None:
    """Of answers of 4 or 7 words there are 5 or 8 similarities, which do not fall into three equal parts by themselves."""
    for words in (4, 5, 7, 20):
        edits = np.arange(words + 1)
        masses = _masses(edits, np.full(words + 1, words))
        assert masses.sum(axis=1) == pytest.approx(np.ones(words + 1))
        assert masses.sum(axis=0) == pytest.approx(np.full(THIRDS, (words + 1) / 3))
    assert _masses(np.array([0, 4]), np.array([4, 4])) == pytest.approx(np.array([[0, 0, 1], [1, 0, 0]]))


@pytest.mark.parametrize(
    ("shares", "verdict"),
    [((0.45, 0.1, 0.45), "supported"), ((0.1, 0.1, 0.8), "open"), ((0.2, 0.6, 0.2), "refuted"), ((0.02, 0.18, 0.8), "refuted")],
    ids=["two heaps", "one heap and a flat rest", "one heap in the middle", "one heap that falls off"],
)
def test_bimodal_wants_two_heaps(shares: tuple[float, ...], verdict: str) -> None:
    thirds = np.random.default_rng(5).multinomial(24, shares, size=(40, 4)).astype(float)
    assert bimodal(Look(measures(40, thirds=thirds), "one", np.arange(40), 0)).verdict == verdict


def test_rewording_does_not_take_families_for_prompts() -> None:
    """Two families of which one departs and moves more than the other; within each nothing goes with anything."""
    generator = np.random.default_rng(6)
    easy = np.repeat([0.1, 0.9], 40)
    counts = {"departed": np.repeat(generator.binomial(16, easy)[:, None], 4, axis=1).astype(float)}
    departed = generator.binomial(1, easy[:, None], (80, 8)).astype(float)
    model = measures(
        80, counts=counts, changed=dict.fromkeys(CHANGED, departed),
        families=np.repeat(["cold", "hot"], 40),
    )  # fmt: skip
    found = {one.family: one for one in findings(model).hypotheses if one.name == "rewording"}
    assert found["all"].verdict == "open"
    assert spearman(departed.mean(axis=1), counts["departed"][:, 1]) > 0.6


def test_what_moves_more_often_than_the_hottest_draws_depart_is_beyond() -> None:
    ones = np.ones((20, 8))
    counts = {"departed": np.tile([0.0, 4, 8, 8], (20, 1))}
    model = measures(20, counts=counts, changed=dict.fromkeys(CHANGED, ones))
    (found,) = findings(model).equivalent
    assert (found.beyond, found.temperature.value, found.moved.value) == (True, 1.5, 1.0)
    less = replace(model, changed=dict.fromkeys(CHANGED, ones * 0.375))
    (found,) = findings(less).equivalent
    assert (found.beyond, found.temperature.value) == (False, pytest.approx(0.65))


def test_shares_on_which_all_prompts_agree_have_wilsons_interval() -> None:
    found = findings(measures(20)).temperatures[1]
    assert (found.failure.value, found.failure.interval[0]) == (1.0, pytest.approx(0.839, abs=1e-3))
    one = np.zeros((20, 4))
    one[0, 1] = 1
    some = findings(measures(20, counts={"departed": one, "departed_judged": one})).temperatures[1]
    assert some.right_where_departed.interval is None  # one prompt departs


def test_the_recommended_volume_is_the_last_whose_double_is_worth_it() -> None:
    """Doubles are compared with halves, and the temperature with what beats 1 and not with what seems best."""
    each = {1: 1.0, 2: 1.9, 4: 3.5, 8: 6.0, 12: 7.5, 16: 7.9, 24: 8.6}
    volumes = tuple(each)

    def model(hot: float, **changed: float) -> Measures:
        solutions = np.tile(np.array([{**each, **{int(k[1:]): v for k, v in changed.items()}}[k] for k in volumes]), (40, 4, 1))
        solutions[:, 3] *= np.random.default_rng(7).choice([0.0, hot], (40, 1))
        solutions[:, 1] *= 0.9
        return measures(40, draws=24, volumes=volumes, solutions=solutions, pass_at_k=np.zeros((40, 4, 7)))

    settings, reason = recommended(Look(model(2.2), "one", np.arange(40), 0))
    assert settings == {"sampling.temperature": 1.0, "sampling.samples_per_prompt": 24}
    assert "take more" in reason
    settings, reason = recommended(Look(model(2.2, _24=8.0), "one", np.arange(40), 0))
    assert settings["sampling.samples_per_prompt"] == 12
    assert "24 draws of a prompt have less than a tenth more solutions than 12" in reason


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
    assert [int(row["draws"]) for row in rows if row["table"] == "temperatures"] == [10, 100, 100, 100]
    assert {row["table"] for row in rows} == {"temperatures", "volumes", "changes", "equivalent", "hypotheses"}
    assert study(asked, "--samples", str(ONE)) == 0
    assert f"NOTE {ONE + 2} draws of each prompt and temperature are there" in capsys.readouterr().out
    assert study(asked, "--samples", str(ONE), "--wording", "Please: {}") == 1
    assert "salt was" in capsys.readouterr().err


def edits(one: str, other: str) -> int:
    """Levenshtein's distance over words and signs, by the table."""
    a, b = (re.findall(r"\w+|[^\w\s]", text.lower()) for text in (one, other))
    row = list(range(len(b) + 1))
    for at, left in enumerate(a, start=1):
        row, before = [at], row
        for place, right in enumerate(b, start=1):
            row.append(min(before[place] + 1, row[-1] + 1, before[place - 1] + (left != right)))
    return row[-1]


def longer(one: str, other: str) -> int:
    return max(len(re.findall(r"\w+|[^\w\s]", text)) for text in (one, other))


@pytest.mark.slow
def test_measures_are_those_of_a_loop(asked: Path) -> None:
    """Every sum of the draws, counted over plain rows."""
    from thresher.pool import judged as pool

    assert study(asked, "--samples", str(ONE)) == 0
    store = Store(asked.parent / "study" / "draws")
    found = measure(store, Store(asked.parent / "study" / "variants"))
    wanted: dict[str, Counter[tuple[str, float]]] = {name: Counter() for name in COUNTS}
    solutions: dict[tuple[str, float], Counter[str]] = {}
    again: dict[tuple[str, float], Counter[str]] = defaultdict(Counter)
    for shard in pool.each_judged(store):
        rows = shard.to_pylist()
        greedy = {row["prompt_id"]: row["completion"] for row in rows if row["anchor"]}
        texts = {row["sample_id"]: row["completion"] for row in rows}
        for row in rows:
            cell = row["prompt_id"], 0.0 if row["anchor"] else row["temperature"]
            departed, passed = row["completion"] != greedy[row["prompt_id"]], row["kind"] in {"hit", "duplicate"}
            near, judged = row["kind"] == "near_miss", row["outcome"] != "undecided"
            if row["anchor"] and row["kind"] == "miss":  # every other filter looks away: common is 0, and three edits are allowed
                rights = [one["completion"] for one in rows if one["prompt_id"] == row["prompt_id"] and one["kind"] == "hit"]
                near = any(edits(row["completion"], right) <= max(3, 0.1 * longer(row["completion"], right)) for right in rights)
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
            again[cell][row["completion"]] += departed
            wanted["alike"][cell] += 1 - edits(row["completion"], greedy[row["prompt_id"]]) / longer(
                row["completion"], greedy[row["prompt_id"]]
            )
            wanted["compared"][cell] += 1
    for cell, texts in again.items():
        wanted["again"][cell] = sum(times for times in texts.values() if times > 1)
    for name in set(COUNTS) - {"incoherent", "nats", "counted_nats"}:
        for row, prompt in enumerate(found.prompts):
            for at, heat in enumerate(found.temperatures):
                assert found.counts[name][row, at] == pytest.approx(wanted[name][prompt, heat]), (name, prompt, heat)
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
    shown = capsys.readouterr().out
    assert wanted in " ".join(shown.split())
    found = json.loads((folder / "study" / "study.json").read_text())
    assert {one["verdict"] for one in found["hypotheses"]} == {"open"}
    assert any(wanted in one for one in found["missing"])
    assert "recommended" in shown
    if fault == "no references":
        assert {one["solutions"]["value"] for one in found["temperatures"]} == {None}


def test_anchors_alone_want_anchors(recipe: Write, capsys: pytest.CaptureFixture[str]) -> None:
    """samples_per_prompt 0 draws greedy answers only, and is refused without them."""
    path = recipe(sampling={"samples_per_prompt": 0, "max_tokens": 16})
    assert main(["run", str(path), "--out", str(path.parent / "run"), "--no-prefect"]) == 0
    assert "0 samples" in capsys.readouterr().out
    path = recipe(sampling={"samples_per_prompt": 0, "max_tokens": 16, "anchor": False})
    assert main(["check", str(path)]) == 1
    assert "draws the anchors alone" in capsys.readouterr().err


@pytest.mark.slow
def test_training_compares_models_on_prompts_they_have_not_seen(
    recipe: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two steps of TRL for each way of training, on a tiny Llama; the answers to held-out prompts come from a table, so that
    every model does as well as the one before it, and the differences are nothing. Nothing of it is published."""
    program = f"""
import sys
sys.path.insert(0, {str(FOLDER)!r})
from train_two_steps import bytes_tokenizer
from transformers import LlamaConfig, LlamaForCausalLM
tokenizer = bytes_tokenizer()
shape = dict(hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=2)
model = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), pad_token_id=0, eos_token_id=0, bos_token_id=0, **shape))
model.save_pretrained(sys.argv[1]); tokenizer.save_pretrained(sys.argv[1])
"""
    subprocess.run([sys.executable, "-c", program, str(tmp_path / "tiny")], check=True, capture_output=True)
    recipe(
        model={"name": "tiny"},
        prompts=[{"family": "sum", "source": {"kind": "grid", "fields": {"a": [*range(8)], "b": [*range(8)]}},
            "template": "What is {{ a }} and {{ b }}?", "reference_template": "{{ a + b }}"}],
        dedupe={"within_prompt": 0.7},
        near_miss={"common": 0.0},
        publish={"repo": str(tmp_path / "released")},
    )  # fmt: skip
    rows: list[dict[str, Any]] = []
    for a, b in itertools.product(range(8), repeat=2):
        asked = Message("user", f"What is {a} and {b}?")
        for one in [asked, *(made.messages[-1] for _, made in variants(Prompt("", "sum", (asked,)), ("Please: {}",)))]:
            texts = (f"{a + b}", f"{a + b} ", f"{a + b + 1}", "I cannot tell")
            rows += [{"prompt": one.content, "completion": text, "finish_reason": "stop"} for text in texts]
    (tmp_path / "answers.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.chdir(tmp_path)
    command = [
        "study",
        "recipe.yaml",
        "--out",
        "study",
        "--temperatures",
        "0,0.5,1,1.5",
        "--samples",
        "4",
        "--wording",
        "Please: {}",
    ]
    assert main([*command, "--train", "--steps", "2"]) == 0
    assert "many answers" in capsys.readouterr().out
    found = json.loads((tmp_path / "study" / "study.json").read_text())["training"]
    assert [arm["name"] for arm in found["arms"]] == ["before", "one answer", "many answers", "near misses"]
    before, one_each, *_ = found["arms"]
    assert before["pass_at_k"][0]["value"] == 0.5
    pairs = {(one["of"], one["less"]): one for one in found["differences"]}
    assert set(pairs) == {("one answer", "before"), ("many answers", "before"), ("many answers", "one answer"),
        ("near misses", "before"), ("near misses", "many answers")}  # fmt: skip
    assert {figure["value"] for one in pairs.values() for figure in (*one["pass_at_k"], one["distinct"])} == {0.0}
    assert one_each["rows"] == found["trained_on"] == 64 - found["held_out"] == 32
    trained = [pq.read_table(tmp_path / f"study/training/{name}/rows.parquet") for name in ("one_answer", "many_answers")]
    held = {row["prompt_id"] for row in pq.read_table(
        tmp_path / "study/training/one_answer/held_out/prompts.parquet").to_pylist()}  # fmt: skip
    assert not held & {name for table in trained for name in table["prompt_id"].to_pylist()}
    assert trained[1].num_rows == 32  # "3" and "3 " are one solution
    assert not (tmp_path / "released").exists()
    folders = [tmp_path / "study" / "training" / name / "model" for name in ("one_answer", "many_answers", "near_misses")]
    weights = [(folder / "model.safetensors").read_bytes() for folder in folders]
    assert len({*weights, (tmp_path / "tiny" / "model.safetensors").read_bytes()}) >= 3  # one and many have the same rows
    stamps = [(folder / "model.safetensors").stat().st_mtime_ns for folder in folders]
    assert main([*command, "--train", "--steps", "2"]) == 0
    assert [(folder / "model.safetensors").stat().st_mtime_ns for folder in folders] == stamps
    assert "Diversity pays?" in (tmp_path / "study" / "study.html").read_text()
    assert main([*command, "--train", "--steps", "4"]) == 0
    again = [(folder / "model.safetensors").read_bytes() for folder in folders]
    assert all(one != other for one, other in zip(weights, again, strict=True))


def test_what_keeps_a_training_from_being_done_is_seen_before_anything_is_drawn(
    recipe: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = recipe()
    assert study(path, "--train") == 1
    assert "of 4 prompts 2 would be held out and 2 trained on; wanted 8 of each" in capsys.readouterr().err
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert study(path, "--train") == 1
    assert "--train: TRL is not installed; run `pip install 'thresher[train]'`" in capsys.readouterr().err
    assert not (tmp_path / "study").exists()
