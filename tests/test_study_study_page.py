"""The page of a study. It is drawn from a whole study in test_study_run_study.py."""

from helpers.studies import measures_of, simulated_measures
from thresher.study.results import results
from thresher.study.study_page import charts, page


def test_charts_without_rows_are_left_out() -> None:
    full = charts(results(simulated_measures(20, 1, rate=lambda temperature: 0.3)), None)
    bare = charts(results(measures_of(20, changes=(), changed={})), None)

    assert set(full) == {"failures", "entropy", "yields", "pass_at_k", "changes"}
    assert set(bare) == {"failures", "entropy", "pass_at_k"}


def test_the_page_escapes_what_it_is_given() -> None:
    text = page(results(measures_of(20)), name="<b>recipe</b>", model="m", draws=320)

    assert "&lt;b&gt;recipe&lt;/b&gt;: temperature study" in text
    assert "<b>recipe" not in text
