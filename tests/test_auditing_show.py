import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from helpers.small_run import small_run
from thresher.auditing.count_run import count
from thresher.auditing.show import families_table, funnel_table, markdown, percent, print_audit

# -- intervals -----------------------------------------------------------------------------------------------------------


# -- shown ---------------------------------------------------------------------------------------------------------------


def printed(result: Any, width: Any, encoding: str = "utf-8") -> Any:
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    print_audit(result, Console(file=file, width=width))
    file.flush()
    return file.buffer.getvalue().decode(encoding)


@pytest.mark.parametrize("width", [80, 120])
def test_large_numbers_fit_the_terminal(tmp_path: Path, width: int) -> None:
    result = count(small_run(tmp_path))
    first = replace(result.filters[0], name="reasoning_gym_score", seen=12_345_678, kept=12_345_670, dropped={"wrong": 8})
    large = replace(result.families[0], family="word_problems", samples=12_345_678, prompts=123_456, hits=1_234_567)

    shown = printed(replace(result, filters=(first,), families=(large,), total=large), width)

    assert max(map(len, shown.splitlines())) <= width
    for text in ("reasoning_gym_score", "12\u202f345\u202f678", ">99.9 %", "word_problems", "1\u202f234\u202f567"):
        assert text in shown


def test_terminal_without_unicode_is_served(tmp_path: Path) -> None:
    result = count(small_run(tmp_path))

    shown = printed(replace(result, samples=1_234_567), 80, "ascii")

    assert "1,234,567 samples" in shown


def test_unfinished_run_is_shown_with_its_problem(tmp_path: Path) -> None:
    shown = printed(count(small_run(tmp_path, stop_after=0)), 80)

    assert "unfinished" in shown
    assert "PROBLEM" in shown


def test_brackets_of_a_family_are_no_markup(tmp_path: Path) -> None:
    result = count(small_run(tmp_path))
    strange = replace(result.families[0], family="[bold]x|y")

    shown = replace(result, families=(strange,))

    assert "[bold]x|y" in printed(shown, 120)
    assert "| [bold]x\\|y |" in markdown(shown)


def test_markdown_holds_both_tables_and_no_seconds(tmp_path: Path) -> None:
    result = count(small_run(tmp_path))

    text = markdown(result)

    assert "| answer | 18 | 6 (33.3 %) | 6 | 6 | wrong_answer 6, no_reference 6 |" in text
    assert text == markdown(replace(result, seconds=replace(result.seconds, sampling=99.0)))
    assert len(funnel_table(result).columns) == len(families_table(result).columns) == 6


@pytest.mark.parametrize(
    ("rate", "text"), [(0, "0 %"), (1, "100 %"), (0.00001, "<0.1 %"), (0.99999, ">99.9 %"), (0.1234, "12.3 %")]
)
def test_percent_never_rounds_to_all_or_nothing(rate: float, text: str) -> None:
    assert percent(rate) == text
