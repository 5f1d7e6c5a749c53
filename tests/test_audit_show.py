import io
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from helpers.small_run import small_run
from thresher.audit.count_run import audit
from thresher.audit.show import families_table, funnel_table, markdown, percent, print_audit
from thresher.estimators.intervals import expanded_tail, pass_rate_interval, wilson

# -- intervals -----------------------------------------------------------------------------------------------------------


def prompts_of(random: Any, prompts: Any, each: Any) -> Any:
    """(decided, passed) of prompts whose own rates are Beta(0.5, 1.5), so mostly hard: the mean rate is 0.25."""
    return Counter((each, int(passed)) for passed in random.binomial(each, random.beta(0.5, 1.5, prompts)))


@pytest.mark.parametrize("prompts", [15, 60])
def test_interval_covers_the_true_rate_about_as_often_as_it_says(prompts: int) -> None:
    random = np.random.default_rng(5)
    runs = 500
    intervals = [pass_rate_interval(prompts_of(random, prompts, 6), run, resamples=500) for run in range(runs)]

    covered = sum(low <= 0.25 <= high for low, high in intervals) / runs

    # Three standard errors of 500 runs are 2.9 points, and fifteen prompts so skewed cost two more.
    assert 0.90 < covered < 0.985


@pytest.mark.slow
def test_interval_equals_that_of_a_plain_bootstrap() -> None:
    random = np.random.default_rng(3)
    cells = prompts_of(random, 200, 8)
    each = np.array([pair for pair, count in cells.items() for _ in range(count)])
    drawn = each[random.integers(0, len(each), (20_000, len(each)))].sum(axis=1)
    tail = expanded_tail(200)

    plain = np.quantile(drawn[:, 1] / drawn[:, 0], [tail, 1 - tail])

    assert pass_rate_interval(cells, 1, resamples=20_000) == pytest.approx(tuple(plain), abs=0.003)


def test_prompts_of_one_rate_fall_back_to_wilson() -> None:
    assert pass_rate_interval({(4, 0): 10, (7, 0): 10, (0, 0): 99}, 1) == wilson(0.0, 20)
    assert wilson(0.0, 20) == pytest.approx((0, 0.1611), abs=1e-4)
    assert wilson(0.5, 10) == pytest.approx((0.2366, 0.7634), abs=1e-4)


def test_no_decided_prompt_has_no_interval() -> None:
    assert pass_rate_interval({(0, 0): 3}, 1) is None
    assert pass_rate_interval({}, 1) is None


def test_expanded_tail_is_that_of_student() -> None:
    # Phi(-sqrt(10/9) * t(0.975, 9) = 2.2622) and, for very many prompts, the 2.5 % of the plain percentile interval.
    assert expanded_tail(10) == pytest.approx(0.00855, abs=2e-4)
    assert expanded_tail(10**6) == pytest.approx(0.025, abs=1e-5)


@given(st.dictionaries(st.tuples(st.integers(1, 9), st.integers(0, 9)), st.integers(1, 50), min_size=1, max_size=6))
@settings(max_examples=50)
def test_interval_lies_within_nought_and_one_and_is_the_same_again(cells: Any) -> None:
    cells = {(decided, min(decided, passed)): count for (decided, passed), count in cells.items()}

    low, high = pass_rate_interval(cells, 1, resamples=100)

    assert 0 <= low <= high <= 1
    assert pass_rate_interval(dict(reversed(cells.items())), 1, resamples=100) == (low, high)


# -- shown ---------------------------------------------------------------------------------------------------------------


def printed(result: Any, width: Any, encoding: str = "utf-8") -> Any:
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    print_audit(result, Console(file=file, width=width))
    file.flush()
    return file.buffer.getvalue().decode(encoding)


@pytest.mark.parametrize("width", [80, 120])
def test_large_numbers_fit_the_terminal(tmp_path: Path, width: int) -> None:
    result = audit(small_run(tmp_path))
    first = replace(result.filters[0], name="reasoning_gym_score", seen=12_345_678, kept=12_345_670, dropped={"wrong": 8})
    large = replace(result.families[0], family="word_problems", samples=12_345_678, prompts=123_456, hits=1_234_567)

    shown = printed(replace(result, filters=(first,), families=(large,), total=large), width)

    assert max(map(len, shown.splitlines())) <= width
    for text in ("reasoning_gym_score", "12\u202f345\u202f678", ">99.9 %", "word_problems", "1\u202f234\u202f567"):
        assert text in shown


def test_terminal_without_unicode_is_served(tmp_path: Path) -> None:
    result = audit(small_run(tmp_path))

    shown = printed(replace(result, samples=1_234_567), 80, "ascii")

    assert "1,234,567 samples" in shown


def test_unfinished_run_is_shown_with_its_problem(tmp_path: Path) -> None:
    shown = printed(audit(small_run(tmp_path, stop_after=0)), 80)

    assert "unfinished" in shown
    assert "PROBLEM" in shown


def test_brackets_of_a_family_are_no_markup(tmp_path: Path) -> None:
    result = audit(small_run(tmp_path))
    strange = replace(result.families[0], family="[bold]x|y")

    shown = replace(result, families=(strange,))

    assert "[bold]x|y" in printed(shown, 120)
    assert "| [bold]x\\|y |" in markdown(shown)


def test_markdown_holds_both_tables_and_no_seconds(tmp_path: Path) -> None:
    result = audit(small_run(tmp_path))

    text = markdown(result)

    assert "| answer | 18 | 6 (33.3 %) | 6 | 6 | wrong_answer 6, no_reference 6 |" in text
    assert text == markdown(replace(result, seconds=replace(result.seconds, sampling=99.0)))
    assert len(funnel_table(result).columns) == len(families_table(result).columns) == 6


@pytest.mark.parametrize(
    ("rate", "text"), [(0, "0 %"), (1, "100 %"), (0.00001, "<0.1 %"), (0.99999, ">99.9 %"), (0.1234, "12.3 %")]
)
def test_percent_never_rounds_to_all_or_nothing(rate: float, text: str) -> None:
    assert percent(rate) == text
