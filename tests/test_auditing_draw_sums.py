"""Sums over draws: of an adaptive run only the first draws of each prompt, and parts add up."""

from pathlib import Path

from helpers.small_run import SIX_DRAWS, small_run
from thresher.auditing.draw_sums import DrawSums, draws_query, first_draws, sums_of
from thresher.auditing.sql_tables import opened_tables
from thresher.pool.run import Run


def summed(run: Run, condition: str = "true", first: int | None = None) -> DrawSums:
    """The sums of the draws that meet a condition."""
    with opened_tables(run) as connection:
        connection.execute(f"create temp table drawn as select * from ({draws_query(run)}) where {condition}")
        return sums_of(connection, first)


def test_sums_of_different_prompts_add_up(tmp_path: Path) -> None:
    run = small_run(tmp_path, SIX_DRAWS)
    even, odd = (summed(run, f"hash(prompt_id) % 2 = {part}") for part in (0, 1))

    even.add(odd)

    whole = summed(run)
    assert (even.prompts, even.tokens, even.similarity) == (whole.prompts, whole.tokens, whole.similarity)
    assert even.agreement == whole.agreement
    assert whole.prompts == {("sums", 6, 6): 1, ("sums", 6, 2): 1, ("sums", 4, 0): 1, ("words", 5, 1): 1, ("words", 6, 0): 1}


def test_only_an_adaptive_run_is_limited_to_its_first_draws(tmp_path: Path) -> None:
    plan = [("sums", ["wrong", "wrong", "right", "right"], None)] * 3
    adaptive = {"samples_per_prompt": 2, "target_hits": 2, "max_samples_per_prompt": 4}

    assert first_draws(small_run(tmp_path / "plain", plan)) is None
    assert first_draws(run := small_run(tmp_path / "adaptive", plan, sampling=adaptive)) == 2
    assert summed(run, first=2).prompts == {("sums", 2, 0): 3}
    assert summed(run).prompts == {("sums", 4, 2): 3}
