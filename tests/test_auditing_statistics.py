"""Each statistic is compared with an independent computation: brute force, another library, or a simulation."""

import itertools
import json
import math
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pytest

from helpers import known
from helpers.small_run import SIX_DRAWS, judged_rows, small_run
from schemas.sample import SAMPLES
from thresher.auditing.draw_sums import sums_of
from thresher.auditing.kept import FOLDER
from thresher.auditing.query import query
from thresher.auditing.statistics import answer_entropies, mean_interval, of_k, pass_at_k, statistics
from thresher.cli import main
from thresher.errors import AuditError
from thresher.pool.run import Run


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return small_run(tmp_path / "run", SIX_DRAWS, shard_prompts=2)


# -- pass@k --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "c"), [(6, 0), (6, 1), (6, 3), (6, 6), (5, 2)])
def test_pass_at_k_is_the_share_of_subsets_with_a_pass(n: int, c: int) -> None:
    passed = [True] * c + [False] * (n - c)
    for k in range(1, n + 1):
        subsets = list(itertools.combinations(passed, k))
        expected = sum(any(entry) for entry in subsets) / len(subsets)
        assert of_k(np.array([n]), np.array([c]), k)[0] == pytest.approx(expected, abs=1e-12)


@pytest.mark.slow
def test_pass_at_k_is_unbiased_and_its_interval_covers() -> None:
    """Prompts with rates of their own, 16 draws each: the truth is the mean of 1 - (1 - p)^k."""
    draw = np.random.default_rng(5)
    k, covered = 4, 0.0
    estimates = []
    truth = 1 - np.mean((1 - draw.beta(0.5, 1.5, 400_000)) ** k)
    for number in range(300):
        passed = draw.binomial(16, draw.beta(0.5, 1.5, 40))
        curve = pass_at_k({"all": Counter((16, int(c)) for c in passed)}, number)
        estimate = next(point for point in curve if point.k == k)
        estimates.append(estimate.value)
        covered += bool(estimate.interval[0] <= truth <= estimate.interval[1])

    assert np.mean(estimates) == pytest.approx(truth, abs=3.5 * np.std(estimates) / np.sqrt(300))
    assert 0.91 <= covered / 300 <= 0.99


def test_each_prompts_pass_at_k_in_quantiles_and_in_sql(run: Run) -> None:
    """The quantiles are numpy's of the prompts' own values; SQL returns each of those."""
    rows = [row for row in judged_rows(run) if not row["anchor"]]
    became = {name: [row for row in rows if row["prompt_id"] == name] for name in dict.fromkeys(row["prompt_id"] for row in rows)}
    wanted = {
        name: {
            "samples": len(mine),
            "decided": sum(row["outcome"] != "undecided" for row in mine),
            "passed": sum(row["kind"] in ("hit", "duplicate") for row in mine),
            "hits": sum(row["kind"] == "hit" for row in mine),
            "near_misses": 0,
            "undecided": sum(row["outcome"] == "undecided" for row in mine),
        }
        for name, mine in became.items()
    }
    anchors = {row["prompt_id"]: row["kind"] in ("hit", "duplicate") for row in judged_rows(run) if row["anchor"]}

    found = query(run, "select *, pass_at_k(decided, passed, 4) as four, pass_at_k(decided, passed, 7) as seven from prompts")

    assert {row["prompt_id"]: {name: row[name] for name in next(iter(wanted.values()))} for row in found.to_pylist()} == wanted
    assert {row["prompt_id"]: row["anchor_passed"] for row in found.to_pylist()} == anchors
    for row in found.to_pylist():
        n, c = row["decided"], row["passed"]
        assert row["four"] == (pytest.approx(of_k(np.array([n]), np.array([c]), 4)[0]) if n >= 4 else None)
        assert row["seven"] is None
    for point in statistics(run).pass_at_k:
        some = [wanted[name] for name, mine in became.items() if point.family in ("all", mine[0]["family"])]
        values = [of_k(np.array([w["decided"]]), np.array([w["passed"]]), point.k)[0] for w in some if w["decided"] >= point.k]
        assert point.quantiles == pytest.approx(np.quantile(values, [0.05, 0.25, 0.5, 0.75, 0.95]))


def test_intervals_of_constant_values() -> None:
    ones, weights = np.ones(1), np.array([20])
    assert mean_interval(ones, weights, 1) == pytest.approx((0.8389, 1.0), abs=1e-3)
    assert mean_interval(ones * 0.5, weights, 1) == pytest.approx((0.2993, 0.7007), abs=1e-3)  # Wilson's, as of the pass rate
    assert mean_interval(ones * 2.5, weights, 1) == (2.5, 2.5)


def test_pass_at_k_of_an_adaptive_run_takes_the_first_draws_only(tmp_path: Path) -> None:
    plan = [("sums", ["wrong", "wrong", "right", "right"], None)] * 8
    run = small_run(tmp_path, plan, sampling={"samples_per_prompt": 2, "target_hits": 2, "max_samples_per_prompt": 4})

    found = statistics(run).pass_at_k

    assert [(entry.k, entry.value) for entry in found] == [(1, 0.0), (2, 0.0)]


# -- the rest ------------------------------------------------------------------------------------------------------------


def test_each_figure_equals_a_loop_over_the_rows(run: Run) -> None:
    found, rows = statistics(run), judged_rows(run)
    drawn = [row for row in rows if not row["anchor"]]
    anchors = {row["prompt_id"]: row for row in rows if row["anchor"] and row["outcome"] != "undecided"}
    passed = ("hit", "duplicate")

    def became(row: Any) -> Any:
        return "undecided" if row["outcome"] == "undecided" else row["kind"] or "unfit"

    for length in found.lengths:
        mine = [row for row in drawn if became(row) == length.kind]
        sizes = [len(row["completion_ids"]) for row in mine]
        assert (length.samples, length.unit) == (len(mine), "tokens")
        assert length.quantiles == pytest.approx(np.quantile(sizes, [0.05, 0.25, 0.5, 0.75, 0.95]))
        assert length.truncated == np.mean([row["finish_reason"] == "length" for row in mine])
    for likelihood in found.likelihoods:
        mine = [row for row in drawn if likelihood.kind in ("all", became(row))]
        tokens = sum(len(row["logprobs"]) for row in mine)
        assert likelihood.samples == len(mine)
        assert likelihood.surprisal == pytest.approx(-sum(sum(row["logprobs"]) for row in mine) / tokens)
    for agreement in found.agreement:
        mine = [row for row in drawn if row["prompt_id"] in anchors and agreement.family in ("all", row["family"])]
        decided = [row for row in mine if row["outcome"] != "undecided"]
        right = {name: anchor["kind"] in passed for name, anchor in anchors.items()}
        alike = [(row["kind"] in passed) == right[row["prompt_id"]] for row in decided]
        assert agreement.prompts == len({row["prompt_id"] for row in mine})
        assert agreement.same_text == np.mean([row["completion"] == anchors[row["prompt_id"]]["completion"] for row in mine])
        assert agreement.same_outcome == pytest.approx(np.mean(alike))
        where = [row["kind"] in passed for row in decided if right[row["prompt_id"]]]
        assert agreement.passed_where_anchor_passed == (pytest.approx(np.mean(where)) if where else None)
    rates = {rate.family: (rate.none, sum(rate.tenths), rate.every) for rate in found.rates}
    assert rates == {"sums": (1, 1, 1), "words": (1, 1, 0), "all": (2, 2, 1)}
    assert json.loads(json.dumps(found.to_dict()))["rates"][0]["tenths"][3] == 1


def test_empty_and_unfinished_runs_have_statistics_too(tmp_path: Path) -> None:
    assert statistics(small_run(tmp_path / "cut", SIX_DRAWS, stop_after=1)).lengths
    nothing = statistics(small_run(tmp_path / "empty", SIX_DRAWS, stop_after=0))
    assert (nothing.pass_at_k, nothing.lengths, nothing.agreement) == ((), (), ())
    brought = statistics(small_run(tmp_path / "brought", [("sums", ["right", "torn"], None)], origin="brought"))
    assert brought.likelihoods == ()
    assert brought.lengths[0].unit == "characters"


# -- entropy of answers --------------------------------------------------------------------------------------------------


def drawn_of(answers: Any) -> Any:
    """A connection to draws (prompts, n) of numbered answers, as statistics() has them."""
    prompts, n = answers.shape
    columns = {
        "family": pa.repeat("made", answers.size),
        "prompt_id": pa.array(np.repeat(np.arange(prompts), n)),
        "index": pa.array(np.tile(np.arange(n), prompts)),
        "anchor": pa.repeat(False, answers.size),
        "failed": pa.repeat(False, answers.size),
        "text": pa.array(answers.ravel()),
        "outcome": pa.repeat("keep", answers.size),
        "kind": pa.repeat("hit", answers.size),
        "similarity": pa.nulls(answers.size, pa.float64()),
        "finish_reason": pa.repeat("stop", answers.size),
        "logprob": pa.nulls(answers.size, pa.float64()),
        "tokens": pa.repeat(1, answers.size),
        "characters": pa.repeat(1, answers.size),
        "reasoning_tokens": pa.repeat(0, answers.size),
        "reasoning_characters": pa.nulls(answers.size, pa.int64()),
        "cut": pa.repeat(False, answers.size),
    }
    connection = duckdb.connect()
    connection.register("drawn", pa.table(columns))
    return connection


def plug_in(texts: Any) -> Any:
    shares = [count / len(texts) for count in Counter(texts).values()]
    return -sum(share * math.log(share) for share in shares)


def chao_shen(texts: Any) -> Any:
    """The formula of the paper, one text at a time."""
    n, counts = len(texts), Counter(texts)
    singles = sum(1 for count in counts.values() if count == 1)
    coverage = 1 - (n - 1 if singles == n else singles) / n
    total = 0.0
    for count in counts.values():
        p = coverage * count / n
        total -= p * math.log(p) / (1 - (1 - p) ** n)
    return total


def test_entropy_of_answers_equals_a_loop(tmp_path: Path) -> None:
    """Prompts with a single draw, anchors and failed draws do not count."""
    said: list[list[str | None]] = [
        ["a", "a", "b", "c"],
        ["a", "b", "c", "d"],
        ["e", "e", "e", "e"],
        ["f", "f", "f", "g"],
        ["h", None, None, None],
    ]
    families = ["sums", "sums", "sums", "words", "words"]
    run = small_run(tmp_path, [(family, ["right"] * 4, "right") for family in families], shard_prompts=2)
    for shard in range(3):
        entry, rows = known(run.store.entry(f"samples/0000{shard}")), run.store.read_table(f"samples/0000{shard}").to_pylist()
        for number, row in enumerate(rows):
            text = "greedy" if row["anchor"] else said[2 * shard + number // 5][row["index"]]
            row |= {"completion": text or "", "answer": text or "", "error": None if text else "HTTP 500"}
        run.store.write_table(f"samples/0000{shard}", pa.Table.from_pylist(rows, SAMPLES), key=entry.key, facts=entry.facts)
    expected = {"sums": said[:3], "words": said[3:4], "all": said[:4]}

    answers = statistics(run).answers
    by_family = {entropy.family: entropy for entropy in answers if entropy.of == "all"}

    assert [entropy for entropy in answers if entropy.of == "passed"] == [
        replace(entropy, of="passed") for entropy in by_family.values()
    ]
    assert list(by_family) == list(expected)
    for family, prompts in expected.items():
        entropy, mean = by_family[family], float(np.mean([chao_shen(texts) for texts in prompts]))
        assert (entropy.prompts, entropy.draws) == (len(prompts), 4 * len(prompts))
        assert entropy.entropy == pytest.approx(mean, abs=1e-12)
        assert entropy.effective == pytest.approx(math.exp(mean))
        if len(prompts) > 1:
            low, high = known(entropy.interval)
            assert low <= entropy.entropy <= high
            assert entropy.effective_interval == pytest.approx((math.exp(low), math.exp(high)))
    assert by_family["words"].interval is None


def test_entropy_of_hits_near_misses_and_misses_equals_a_loop() -> None:
    """Texts of each kind are counted separately; a prompt with a single draw of a kind does not count for it."""
    draw = np.random.default_rng(3)
    names = np.array(["hit", "duplicate", "near_miss", "miss", None])
    texts, kinds = draw.integers(0, 4, (30, 8)), draw.choice(names, (30, 8))
    kinds[0] = ["hit", *["miss"] * 7]
    connection = drawn_of(texts)
    connection.register("drawn", connection.sql("select * from drawn").to_arrow_table().set_column(7, "kind", [kinds.ravel()]))

    found = {entry.of: entry for entry in answer_entropies(sums_of(connection), 1)}

    assert list(found) == ["all", "passed", "near_miss", "miss"]
    became = {"passed": ["hit", "duplicate"], "near_miss": ["near_miss"], "miss": ["miss"], "all": [*kinds.ravel()]}
    for of, mine in became.items():
        some = [[text for text, kind in zip(*row, strict=True) if kind in mine] for row in zip(texts, kinds, strict=True)]
        some = [row for row in some if len(row) > 1]
        assert (found[of].prompts, found[of].draws) == (len(some), sum(map(len, some)))
        assert found[of].entropy == pytest.approx(np.mean([chao_shen(row) for row in some]), abs=1e-9)
    assert found["passed"].prompts < 30


@pytest.mark.parametrize(("answers", "power", "n"), [(100, 1.0, 16), (20, 1.0, 16), (5, 1.0, 8)])
def test_entropy_is_less_biased_than_by_the_plain_formula(answers: int, power: float, n: int) -> None:
    """Answers with probabilities falling as 1 / rank, whose entropy is known; the mean over prompts is the estimators' own."""
    share = np.arange(1, answers + 1) ** -power
    share /= share.sum()
    truth = -float(share @ np.log(share))
    texts = np.random.default_rng(answers).choice(answers, (1500, n), p=share)

    found, _ = answer_entropies(sums_of(drawn_of(texts)), 1)

    plain = np.mean([plug_in(row) for row in texts.tolist()])
    assert found.entropy == pytest.approx(np.mean([chao_shen(row) for row in texts.tolist()]), abs=1e-9)
    assert abs(found.entropy - truth) < 0.35 * abs(plain - truth)
    low, high = known(found.interval)
    assert high - low < 0.2
    half, _ = answer_entropies(sums_of(drawn_of(texts), n // 2), 1)
    assert half.draws == found.draws // 2


@pytest.mark.slow
def test_interval_of_entropy_covers_the_mean_over_prompts() -> None:
    """Prompts have distributions of their own; the interval is for the estimator's mean over such prompts."""
    draw = np.random.default_rng(7)

    def texts(prompts: Any) -> Any:
        shares = draw.dirichlet(np.full(6, 0.5), prompts)
        return np.array([draw.choice(6, 8, p=entry) for entry in shares])

    truth = next(answer_entropies(sums_of(drawn_of(texts(10_000))), 1)).entropy
    intervals = [known(next(answer_entropies(sums_of(drawn_of(texts(40))), number)).interval) for number in range(80)]

    assert 0.88 <= np.mean([low <= truth <= high for low, high in intervals]) <= 1


# -- spread over workers -------------------------------------------------------------------------------------------------


def pool_files(run: Run) -> list[str]:
    """The run's files, without those in which audits keep their results."""
    return sorted(path for path in run.store.fs.find(run.store.path("")) if f"/{FOLDER}/" not in path)


def near(found: Any, wanted: Any) -> None:
    """Check that two results are equal, except for the last digits of sums in another order."""
    if isinstance(wanted, dict):
        assert found.keys() == wanted.keys()
        for key in wanted:
            near(found[key], wanted[key])
    elif isinstance(wanted, list | tuple):
        assert len(found) == len(wanted)
        for one, other in zip(found, wanted, strict=True):
            near(one, other)
    else:
        assert found == (pytest.approx(wanted, abs=1e-9) if isinstance(wanted, float) else wanted)


@pytest.mark.slow
@pytest.mark.parametrize("root", ["local", "memory"])
def test_statistics_of_parts_add_up_to_those_of_the_run(tmp_path: Path, root: str) -> None:
    """Prompts lie in shards of one each; 20 shards make 10 blocks and 10 parts. Temporary files are removed."""
    place = str(tmp_path / "run") if root == "local" else f"memory://{tmp_path.name}/run"
    run = small_run(place, SIX_DRAWS * 4, shard_prompts=1)
    before = pool_files(run)
    calls = []

    def gather(function: Any, items: Any) -> Any:
        calls.append((function.__name__, len(items)))
        assert all(item[0] is run for item in items)
        return [function(*item) for item in items]

    found = statistics(run, gather)

    near(found.to_dict(), statistics(run).to_dict())
    assert calls == [("sort_by_prompt", 10), ("sum_part", 10)]
    assert pool_files(run) == before
    assert found.agreement
    assert found.lengths


@pytest.mark.slow
def test_temporary_files_are_removed_after_an_error(tmp_path: Path) -> None:
    run = small_run(tmp_path / "run", SIX_DRAWS * 4, shard_prompts=1)

    def gather(function: Any, items: Any) -> Any:
        if function.__name__ == "sum_part":
            assert list((tmp_path / "run").glob("statistics-*"))
            raise AuditError("no worker is left")
        return [function(*item) for item in items]

    with pytest.raises(AuditError, match="no worker is left"):
        statistics(run, gather)
    assert not list((tmp_path / "run").glob("statistics-*"))


@pytest.mark.slow
def test_audit_spreads_over_processes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """thresher audit --spread, with the recipe's two filter workers, gives the same audit."""
    small_run(tmp_path / "run", SIX_DRAWS * 4, shard_prompts=1)
    assert main(["audit", str(tmp_path / "run"), "--json"]) == 0
    alone = json.loads(capsys.readouterr().out)
    manifest = json.loads((tmp_path / "run" / "run.json").read_text())
    manifest["recipe"]["run"]["filter_workers"] = 2
    del manifest["digest"]
    (tmp_path / "run" / "run.json").write_text(json.dumps(manifest))

    assert main(["audit", str(tmp_path / "run"), "--json", "--spread"]) == 0
    near(json.loads(capsys.readouterr().out), alone)
