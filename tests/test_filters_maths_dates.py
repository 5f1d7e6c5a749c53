"""Dates and times of day."""

import pytest

from filters.maths.dates import dates, same_time, time_of


@pytest.mark.parametrize(
    ("text", "readings"),
    [
        ("2024-05-03", {(2024, 5, 3)}),
        ("1/2/2024", {(2024, 1, 2), (2024, 2, 1)}),
        ("May 3rd, 2024", {(2024, 5, 3)}),
        ("3 of May", {(None, 5, 3)}),
        ("2024-13-40", set()),
        ("42", set()),
    ],
)
def test_a_date_has_all_its_readings(text: str, readings: set[tuple[int | None, int, int]]) -> None:
    """A text that is not a date has none."""
    assert dates(text) == readings


def test_times_are_equal_if_the_half_of_the_day_may_be() -> None:
    """3:30 may be 15:30; 3:30 am is not."""
    half_past, afternoon, morning = time_of("3:30"), time_of("3:30 p.m."), time_of("3:30 am")
    assert half_past is not None
    assert afternoon is not None
    assert morning is not None

    assert same_time(half_past, afternoon)
    assert not same_time(morning, afternoon)
    assert time_of("noon") == (12, 0, 0, True)
    assert time_of("25:61") is None
