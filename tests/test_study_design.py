"""The temperatures and sizes of a study."""

import pytest

from thresher.errors import ThresherError
from thresher.study.design import Design, temperatures_of


@pytest.mark.parametrize(
    ("text", "temperatures"),
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
def test_temperatures_are_listed_or_evenly_spaced(text: str, temperatures: tuple[float, ...] | None) -> None:
    if temperatures is None:
        with pytest.raises(ThresherError, match="--temperatures"):
            temperatures_of(text)
    else:
        assert temperatures_of(text) == pytest.approx(temperatures)


@pytest.mark.parametrize("temperatures", [(0.0, 0.5), (1.0,), (0.0, 1.0), (0.5, 0.5, 1.0)])
def test_a_design_compares_with_temperature_1(temperatures: tuple[float, ...]) -> None:
    with pytest.raises(ThresherError, match="wanted 1 and at least one other"):
        Design(temperatures)
