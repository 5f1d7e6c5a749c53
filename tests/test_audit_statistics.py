"""Each statistic against an independent way to it: brute force, another library, or a simulation."""

import csv
import io
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

from helpers.small_run import small_run
from schemas.recipe import Recipe
from schemas.sample import SAMPLES
from thresher.audit.compare import since
from thresher.audit.count_run import audit
from thresher.audit.drift import Sums, compared, drift, holm
from thresher.audit.query import query
from thresher.audit.statistics import answer_entropies, mean_interval, of_k, pass_at_k, statistics, sums_of
from thresher.cli import main
from thresher.errors import AuditError
from thresher.pool import judged as pool
from thresher.pool.store import Store

PLAN = [
    (
        family,
        [*(["right"] * right), *(["wrong"] * (6 - right - cut - undecided)), *(["cut"] * cut), *(["open"] * undecided)],
        anchor,
    )
    for family, right, cut, undecided, anchor in [
        ("sums", 6, 0, 0, "right"),
        ("sums", 2, 1, 0, "wrong"),
        ("sums", 0, 0, 2, "right"),
        ("words", 1, 2, 1, "right"),
        ("words", 0, 6, 0, "wrong"),
    ]
]


@pytest.fixture
def run(tmp_path: Path) -> Any:
    return small_run(tmp_path / "run", PLAN, shard_prompts=2)


def judged(store: Store) -> Any:
    """Every row by the rules of the pool, in the order of shards."""
    tables = [
        table.append_column("shard", pa.array([shard] * table.num_rows)) for shard, table in enumerate(pool.each_judged(store))
    ]
    return pa.concat_tables(tables).to_pylist()


# -- SQL -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("corpus", [False, True])
def test_samples_in_sql_became_what_the_pool_says(tmp_path: Path, corpus: bool) -> None:
    store = small_run(tmp_path, corpus=corpus)
    names = [
        "sample_id",
        "outcome",
        "kind",
        "reason",
        "failed_filter",
        "nearest",
        "similarity",
        "detail",
        "shard",
        "completion_ids",
    ]

    found = query(store, f'select {", ".join(names)} from samples order by shard, "row"').to_pylist()

    assert found == [{name: row[name] for name in names} for row in judged(store)]


def test_near_misses_and_duplicates_in_sql(tmp_path: Path) -> None:
    """Of a run with real filters, which name what they are near to."""
    from thresher.inputs import recipe_file
    from thresher.run import steps
    from thresher.run.progress import Progress

    said = ["the answer is 42", "the answer is 42", "so the answer is 42", "the answer is 41", "nothing like it at all 7"]
    rows = [{"prompt": "what?", "reference": "42", "completion": text} for text in said]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    filters = [{"name": "exact_answer", "parameters": {"after": "is"}}]
    (tmp_path / "recipe.yaml").write_text(json.dumps({"name": "near", "filters": filters, "run": {"filter_workers": 0}}))
    begun = steps.begin_brought(recipe_file.load(tmp_path / "recipe.yaml"), tmp_path / "rows.jsonl", tmp_path / "run")
    steps.run(begun, Progress())
    store = Store(tmp_path / "run")

    found = query(store, 'select kind, nearest, similarity from samples order by shard, "row"').to_pylist()

    assert found == [{name: row[name] for name in ("kind", "nearest", "similarity")} for row in judged(store)]
    assert {"near_miss", "duplicate"} <= {row["kind"] for row in found}


def test_sql_has_the_four_tables_and_says_what_is_wrong(run: Any, capsys: pytest.CaptureFixture[str]) -> None:
    one = main(["sql", run.root, "select reason, count(*) as n from verdicts group by 1 order by 2 desc, 1", "--csv"])
    given = Counter(reason for shard in range(3) for reason in pool.verdicts(run, shard)[0]["reason"].to_pylist())
    lines = [f"{reason},{n}" for reason, n in sorted(given.items(), key=lambda item: (-item[1], item[0]))]
    assert (one, capsys.readouterr().out.splitlines()) == (0, ["reason,n", *lines])
    assert main(["sql", run.root, "select count(*) as n from prompts", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == [{"n": 5}]
    found = query(run, "select value from stats where section = 'total' and name = 'pass_rate'").to_pylist()
    assert found == [{"value": audit(run).total.pass_rate}]
    assert main(["sql", run.root, "select nothing from verdicts"]) == 1
    assert "there are prompts, samples, verdicts and stats" in capsys.readouterr().err
    with pytest.raises(AuditError, match="syntax error"):
        query(run, "selct 1")


# -- pass@k --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "c"), [(6, 0), (6, 1), (6, 3), (6, 6), (5, 2)])
def test_pass_at_k_is_the_share_of_subsets_with_a_pass(n: int, c: int) -> None:
    passed = [True] * c + [False] * (n - c)
    for k in range(1, n + 1):
        subsets = list(itertools.combinations(passed, k))
        expected = sum(any(one) for one in subsets) / len(subsets)
        assert of_k(np.array([n]), np.array([c]), k)[0] == pytest.approx(expected, abs=1e-12)


@pytest.mark.slow
def test_pass_at_k_is_unbiased_and_its_interval_covers() -> None:
    """Prompts with rates of their own, 16 draws each: the truth is the mean of 1 - (1 - p)^k."""
    draw = np.random.default_rng(5)
    k, estimates, covered = 4, [], 0
    truth = 1 - np.mean((1 - draw.beta(0.5, 1.5, 400_000)) ** k)
    for number in range(300):
        passed = draw.binomial(16, draw.beta(0.5, 1.5, 40))
        one = next(o for o in pass_at_k({"all": Counter((16, int(c)) for c in passed)}, number) if o.k == k)
        estimates.append(one.value)
        covered += one.interval[0] <= truth <= one.interval[1]

    assert np.mean(estimates) == pytest.approx(truth, abs=3.5 * np.std(estimates) / np.sqrt(300))
    assert 0.91 <= covered / 300 <= 0.99


def test_each_prompts_pass_at_k_in_quantiles_and_in_sql(run: Any) -> None:
    """The quantiles are numpy's of the prompts' own values; SQL gives each of those."""
    rows = [row for row in judged(run) if not row["anchor"]]
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
    anchors = {row["prompt_id"]: row["kind"] in ("hit", "duplicate") for row in judged(run) if row["anchor"]}

    found = query(run, "select *, pass_at_k(decided, passed, 4) as four, pass_at_k(decided, passed, 7) as seven from prompts")

    assert {row["prompt_id"]: {name: row[name] for name in next(iter(wanted.values()))} for row in found.to_pylist()} == wanted
    assert {row["prompt_id"]: row["anchor_passed"] for row in found.to_pylist()} == anchors
    for row in found.to_pylist():
        n, c = row["decided"], row["passed"]
        assert row["four"] == (pytest.approx(of_k(np.array([n]), np.array([c]), 4)[0]) if n >= 4 else None)
        assert row["seven"] is None
    for one in statistics(run).pass_at_k:
        some = [wanted[name] for name, mine in became.items() if one.family in ("all", mine[0]["family"])]
        values = [of_k(np.array([w["decided"]]), np.array([w["passed"]]), one.k)[0] for w in some if w["decided"] >= one.k]
        assert one.quantiles == pytest.approx(np.quantile(values, [0.05, 0.25, 0.5, 0.75, 0.95]))


def test_intervals_of_what_does_not_vary() -> None:
    ones, weights = np.ones(1), np.array([20])
    assert mean_interval(ones, weights, 1) == (pytest.approx(0.8389, abs=1e-3), 1.0)
    assert mean_interval(ones * 0.5, weights, 1) == pytest.approx((0.2993, 0.7007), abs=1e-3)  # Wilson's, as of the pass rate
    assert mean_interval(ones * 2.5, weights, 1) == (2.5, 2.5)


def test_pass_at_k_of_an_adaptive_run_takes_the_first_draws_only(tmp_path: Path) -> None:
    plan = [("sums", ["wrong", "wrong", "right", "right"], None)] * 8
    store = small_run(tmp_path, plan, sampling={"samples_per_prompt": 2, "target_hits": 2, "max_samples_per_prompt": 4})

    found = statistics(store).pass_at_k

    assert [(one.k, one.value) for one in found] == [(1, 0.0), (2, 0.0)]


# -- the rest ------------------------------------------------------------------------------------------------------------


def test_each_figure_is_what_a_loop_over_the_rows_finds(run: Any) -> None:
    found, rows = statistics(run), judged(run)
    drawn = [row for row in rows if not row["anchor"]]
    anchors = {row["prompt_id"]: row for row in rows if row["anchor"] and row["outcome"] != "undecided"}
    passed = ("hit", "duplicate")

    def became(row: Any) -> Any:
        return "undecided" if row["outcome"] == "undecided" else row["kind"] or "unfit"

    for one in found.lengths:
        mine = [row for row in drawn if became(row) == one.kind]
        sizes = [len(row["completion_ids"]) for row in mine]
        assert (one.samples, one.unit) == (len(mine), "tokens")
        assert one.quantiles == pytest.approx(np.quantile(sizes, [0.05, 0.25, 0.5, 0.75, 0.95]))
        assert one.truncated == np.mean([row["finish_reason"] == "length" for row in mine])
    for one in found.likelihoods:
        mine = [row for row in drawn if one.kind in ("all", became(row))]
        tokens = sum(len(row["logprobs"]) for row in mine)
        assert one.samples == len(mine)
        assert one.surprisal == pytest.approx(-sum(sum(row["logprobs"]) for row in mine) / tokens)
    for one in found.agreement:
        mine = [row for row in drawn if row["prompt_id"] in anchors and one.family in ("all", row["family"])]
        decided = [row for row in mine if row["outcome"] != "undecided"]
        right = {name: anchor["kind"] in passed for name, anchor in anchors.items()}
        alike = [(row["kind"] in passed) == right[row["prompt_id"]] for row in decided]
        assert one.prompts == len({row["prompt_id"] for row in mine})
        assert one.same_text == np.mean([row["completion"] == anchors[row["prompt_id"]]["completion"] for row in mine])
        assert one.same_outcome == pytest.approx(np.mean(alike))
        where = [row["kind"] in passed for row in decided if right[row["prompt_id"]]]
        assert one.passed_where_anchor_passed == (pytest.approx(np.mean(where)) if where else None)
    rates = {one.family: (one.none, sum(one.tenths), one.every) for one in found.rates}
    assert rates == {"sums": (1, 1, 1), "words": (1, 1, 0), "all": (2, 2, 1)}
    assert json.loads(json.dumps(found.to_dict()))["rates"][0]["tenths"][3] == 1


def test_empty_and_unfinished_runs_have_statistics_too(tmp_path: Path) -> None:
    assert statistics(small_run(tmp_path / "cut", PLAN, stop_after=1)).lengths
    nothing = statistics(small_run(tmp_path / "empty", PLAN, stop_after=0))
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
    }
    connection = duckdb.connect()
    connection.register("drawn", pa.table(columns))
    return connection


def plug_in(texts: Any) -> Any:
    shares = [count / len(texts) for count in Counter(texts).values()]
    return -sum(share * math.log(share) for share in shares)


def chao_shen(texts: Any) -> Any:
    """As in the paper, a text at a time."""
    n, counts = len(texts), Counter(texts)
    singles = sum(1 for count in counts.values() if count == 1)
    coverage = 1 - (n - 1 if singles == n else singles) / n
    total = 0.0
    for count in counts.values():
        p = coverage * count / n
        total -= p * math.log(p) / (1 - (1 - p) ** n)
    return total


def test_entropy_of_answers_is_what_a_loop_finds(tmp_path: Path) -> None:
    """Texts are given; prompts of one draw, anchors and what could not be drawn say nothing."""
    said = [["a", "a", "b", "c"], ["a", "b", "c", "d"], ["e", "e", "e", "e"], ["f", "f", "f", "g"], ["h", None, None, None]]
    families = ["sums", "sums", "sums", "words", "words"]
    store = small_run(tmp_path, [(family, ["right"] * 4, "right") for family in families], shard_prompts=2)
    for shard in range(3):
        entry, rows = store.entry(f"samples/0000{shard}"), store.read_table(f"samples/0000{shard}").to_pylist()
        for number, row in enumerate(rows):
            text = "greedy" if row["anchor"] else said[2 * shard + number // 5][row["index"]]
            row |= {"completion": text or "", "error": None if text else "HTTP 500"}
        store.write_table(f"samples/0000{shard}", pa.Table.from_pylist(rows, SAMPLES), key=entry.key, facts=entry.facts)
    wanted = {"sums": said[:3], "words": said[3:4], "all": said[:4]}

    every = statistics(store).answers
    found = {one.family: one for one in every if one.of == "all"}

    assert [one for one in every if one.of == "passed"] == [replace(one, of="passed") for one in found.values()]
    assert list(found) == list(wanted)
    for family, prompts in wanted.items():
        one, mean = found[family], np.mean([chao_shen(texts) for texts in prompts])
        assert (one.prompts, one.draws) == (len(prompts), 4 * len(prompts))
        assert one.entropy == pytest.approx(mean, abs=1e-12)
        assert one.effective == pytest.approx(math.exp(mean))
        if len(prompts) > 1:
            assert one.interval[0] <= one.entropy <= one.interval[1]
            assert one.effective_interval == pytest.approx([math.exp(bound) for bound in one.interval])
    assert found["words"].interval is None


def test_entropy_of_hits_near_misses_and_misses_is_what_a_loop_finds() -> None:
    """Texts of each are counted by themselves; a prompt with one such draw says nothing of them."""
    draw = np.random.default_rng(3)
    texts, kinds = draw.integers(0, 4, (30, 8)), draw.choice(["hit", "duplicate", "near_miss", "miss", None], (30, 8))
    kinds[0] = ["hit", *["miss"] * 7]
    connection = drawn_of(texts)
    connection.register("drawn", connection.sql("select * from drawn").to_arrow_table().set_column(7, "kind", [kinds.ravel()]))

    found = {one.of: one for one in answer_entropies(sums_of(connection), 1)}

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
    assert found.interval[1] - found.interval[0] < 0.2
    half, _ = answer_entropies(sums_of(drawn_of(texts), n // 2), 1)
    assert half.draws == found.draws // 2


@pytest.mark.slow
def test_interval_of_entropy_covers_the_mean_over_prompts() -> None:
    """Of prompts with distributions of their own: the interval is for the estimator's mean over such prompts."""
    draw = np.random.default_rng(7)

    def texts(prompts: Any) -> Any:
        shares = draw.dirichlet(np.full(6, 0.5), prompts)
        return np.array([draw.choice(6, 8, p=one) for one in shares])

    truth = next(answer_entropies(sums_of(drawn_of(texts(10_000))), 1)).entropy
    found = [next(answer_entropies(sums_of(drawn_of(texts(40))), number)).interval for number in range(80)]

    assert 0.88 <= np.mean([low <= truth <= high for low, high in found]) <= 1


# -- spread over workers -------------------------------------------------------------------------------------------------


def near(found: Any, wanted: Any) -> None:
    """Equal, but for the last digits of sums whose order differs."""
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
def test_parts_add_up_to_the_whole(tmp_path: Path, root: str) -> None:
    """Prompts lie in shards of one each; 20 shards make 10 blocks and 10 parts. What is written for the while is gone after."""
    place = str(tmp_path / "run") if root == "local" else f"memory://{tmp_path.name}/run"
    store = small_run(place, PLAN * 4, shard_prompts=1)
    before = sorted(store.fs.find(store.path("")))
    calls = []

    def gather(function: Any, items: Any) -> Any:
        calls.append((function.__name__, len(items)))
        assert len({item[0] for item in items}) == 1
        return [function(*item) for item in items]

    found = statistics(store, gather)

    near(found.to_dict(), statistics(store).to_dict())
    assert calls == [("_sort", 10), ("_sum", 10)]
    assert sorted(store.fs.find(store.path(""))) == before
    assert found.agreement
    assert found.lengths


@pytest.mark.slow
def test_what_was_written_for_the_while_is_gone_after_an_error(tmp_path: Path) -> None:
    store = small_run(tmp_path / "run", PLAN * 4, shard_prompts=1)

    def gather(function: Any, items: Any) -> Any:
        if function.__name__ == "_sum":
            assert list((tmp_path / "run").glob("statistics-*"))
            raise AuditError("no worker is left")
        return [function(*item) for item in items]

    with pytest.raises(AuditError, match="no worker is left"):
        statistics(store, gather)
    assert not list((tmp_path / "run").glob("statistics-*"))


@pytest.mark.slow
def test_audit_spreads_over_processes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """thresher audit --spread, by the recipe's two filter workers, says what it says without."""
    small_run(tmp_path / "run", PLAN * 4, shard_prompts=1)
    assert main(["audit", str(tmp_path / "run"), "--json"]) == 0
    alone = json.loads(capsys.readouterr().out)
    manifest = json.loads((tmp_path / "run" / "run.json").read_text())
    manifest["recipe"]["run"]["filter_workers"] = 2
    (tmp_path / "run" / "run.json").write_text(json.dumps(manifest))

    assert main(["audit", str(tmp_path / "run"), "--json", "--spread"]) == 0
    near(json.loads(capsys.readouterr().out), alone)


# -- drift ---------------------------------------------------------------------------------------------------------------


def sums(n: Any, d: Any) -> Any:
    return Sums(len(n), n.sum(), d.sum(), (n * n).sum(), (n * d).sum(), (d * d).sum())


@pytest.mark.slow
def test_drift_is_seldom_found_where_there_is_none_and_found_where_there_is() -> None:
    """Draws of a prompt resemble each other: a plain two-proportion test would be wrong far more often."""
    draw = np.random.default_rng(3)

    def share(prompts: Any, a: Any) -> Any:
        n = draw.integers(4, 17, prompts).astype(float)
        return sums(n, draw.binomial(n.astype(int), draw.beta(a, 1.5, prompts)).astype(float))

    wrong = [compared("x", share(60, 0.5), share(60, 0.5)).p < 0.05 for _ in range(600)]
    found = [compared("x", share(60, 0.5), share(60, 2.0)).p < 0.05 for _ in range(100)]

    assert 0.03 <= np.mean(wrong) <= 0.08
    assert np.mean(found) > 0.9


def test_holm_by_hand_and_few_prompts() -> None:
    few = compared("few", sums(np.ones(3), np.ones(3)), sums(np.ones(3), np.zeros(3)))
    assert (few.z, few.p, few.before, few.after) == (None, None, 1.0, 0.0)
    made = [
        compared(str(p), sums(np.ones(99), np.arange(99) % 2 * 1.0), sums(np.ones(99), np.arange(99) % 2 * 1.0)) for p in range(3)
    ]
    given = [one.__class__(one.of, 0, 0, 1.0, p, drifted=False) for one, p in zip(made, (0.04, 0.01, 0.03), strict=True)]

    assert [(one.p, one.drifted) for one in holm([given[0], few, *given[1:]])] == [
        (pytest.approx(0.06), False),
        (None, False),
        (pytest.approx(0.03), True),
        (pytest.approx(0.06), False),
    ]


@pytest.mark.slow
def test_drift_between_runs_is_told_per_filter(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = small_run(tmp_path / "good", [("sums", ["right", "right", "wrong", "cut"], None)] * 12)
    bad = small_run(
        tmp_path / "bad", [("sums", ["wrong", "wrong", "wrong", "right" if n % 2 else "wrong"], None) for n in range(12)]
    )

    found = {one.of: one for one in drift(bad, good)}

    assert list(found) == ["pass rate", "answer", "exact_duplicate", "finished"]
    assert (found["pass rate"].before, found["pass rate"].after) == (0.5, 0.125)
    assert found["pass rate"].drifted
    assert found["finished"].after == 0
    main(["audit", bad.root, "--against", good.root, "--csv"])
    rows = [row for row in csv.DictReader(io.StringIO(capsys.readouterr().out)) if row["table"] == "drift"]
    assert next((row["of"], row["before"], row["after"]) for row in rows) == ("pass rate", "0.5", "0.125")
    main(["audit", bad.root, "--against", good.root])
    assert "Drifted: pass rate 50.0 % to 12.5 %" in " ".join(capsys.readouterr().out.split())


@pytest.mark.slow
def test_total_drift_and_what_cannot_be_judged_any_more_are_found(tmp_path: Path) -> None:
    """Where all prompts of a run agree there is no variance over prompts; undecided verdicts are a share of their own."""
    right, wrong, cut, unsure = ([("sums", [what] * 4, None)] * 12 for what in ("right", "wrong", "cut", "open"))
    right, wrong, cut, unsure = (small_run(tmp_path / str(n), plan) for n, plan in enumerate((right, wrong, cut, unsure)))

    found = {one.of: one for one in drift(wrong, right)}
    assert (found["pass rate"].drifted, found["finished"].drifted) == (True, False)
    assert found["finished"].p == 1.0
    assert (found["exact_duplicate"].before, found["exact_duplicate"].after) == (0.0, None)
    assert {one.of for one in drift(cut, right) if one.drifted} == {"pass rate", "finished"}
    found = {one.of: one for one in drift(unsure, right)}
    assert (found["undecided by answer"].before, found["undecided by answer"].after) == (0.0, 1.0)
    assert found["undecided by answer"].drifted
    assert (found["pass rate"].before, found["pass rate"].after) == (1.0, None)
    few = small_run(tmp_path / "few", [("sums", ["wrong"] * 4, None)] * 7)
    assert since(few, right).words.startswith("Nothing could be compared")
    assert since(right, small_run(tmp_path / "cut", [("sums", ["right"], None)] * 20, stop_after=5)).words.endswith("unfinished.")


@pytest.mark.slow
def test_runs_side_by_side(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("first", "second"):
        small_run(tmp_path / name)
    small_run(tmp_path / "third", stop_after=1)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "run.json").write_text("{}")

    assert main(["audit", "--all", str(tmp_path), "--json", "--html", str(tmp_path / "runs.html")]) == 0

    rows = {Path(row["run"]).name: row for row in json.loads(capsys.readouterr().out)}
    assert [rows[name]["complete"] for name in ("first", "second", "third", "broken")] == [True, True, False, None]
    assert rows["first"]["pass_rate"] == audit(Store(tmp_path / "first")).total.pass_rate
    assert "not a run of thresher" in rows["broken"]["error"]
    assert main(["audit", "--all", str(tmp_path / "first" / "samples")]) == 1
    assert "holds no runs" in capsys.readouterr().err
    assert main(["audit"]) == 1


def test_a_file_of_another_shape_is_no_sample(tmp_path: Path) -> None:
    """Recipe and Parquet as in an older pool: what is missing is not invented."""
    store = small_run(tmp_path, PLAN)
    entry, table = store.entry("samples/00000"), store.read_table("samples/00000").drop_columns(["temperature"])
    store.write_table("samples/00000", table, key=entry.key, facts=entry.facts)
    assert Recipe.model_validate(store.manifest().recipe)
    found = query(store, "select count(*) as n, count(temperature) as t from samples where shard = 0").to_pylist()
    assert found == [{"n": 14, "t": 0}]
