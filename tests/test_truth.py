"""Verdicts beside the truth: every case of tests/data/truth through the real filters."""

from collections.abc import Iterator

import pytest

from filters.tools import Tools
from helpers.truth import CASES, as_expected, cases_of, judged

FILES = cases_of(CASES)


@pytest.fixture(scope="module")
def tools() -> Iterator[Tools]:
    with Tools() as opened:
        yield opened


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(FILES))
def test_every_verdict_is_the_expected_one(name: str, tools: Tools) -> None:
    """No wrong answer is accepted, and no right one called wrong."""
    said = zip(FILES[name], judged(FILES[name], tools), strict=True)

    faults = [(case, outcomes) for case, outcomes in said if not as_expected(case, outcomes)]
    assert faults == []
