"""Answers that are too expensive to compare."""

import pytest

from filters.maths.guard import expense, refusal


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("x" * 401, "longer than 400 characters"),
        ("(" * 13 + "1" + ")" * 13, "nested deeper than 12"),
        (",".join("1" * 62), "more than 60 elements"),
        ("1" * 4_001 + "+1", "more than 4,000 digits"),
        ("2" * 1_000 + "+1", None),
        ("\\frac{1}{2}", None),
    ],
)
def test_long_and_deep_answers_are_refused_with_the_reason(text: str, why: str | None) -> None:
    assert refusal(text) == why


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("1" * 61, "a number of more than 60 digits"),
        ("2^{3^{4^5}}", "a tower of powers"),
        ("x^4+x^3+x^2+x+1", None),
        ("y^4-2y^3+7y^2+y-5", None),
        ("10000!", "a factorial of a large number"),
        ("3!!", "repeated factorials"),
        ("2^{10000}", "a power above 9,999"),
        ("\\binom{10000}{2}", "a binomial coefficient"),
        ("\\sum_{k=1}^{3} k", "a sum, product, integral or limit"),
        ("\\binom{10}{2}", None),
        ("2^{9999}", None),
        ("999!", None),
        ("\\frac{1}{2}", None),
    ],
)
def test_math_verify_is_not_asked_what_costs_it_too_much(text: str, why: str | None) -> None:
    assert expense(text) == why
