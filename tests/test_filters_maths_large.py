"""Numbers too large to write out."""

from fractions import Fraction

import pytest

from filters.maths.large import PRIMES, Large, exact_root, large, primes
from filters.maths.tokens import UnknownError


def test_the_moduli_are_primes_of_128_bits() -> None:
    assert len(set(primes())) == PRIMES
    assert all(prime.bit_length() == 128 and pow(3, prime - 1, prime) == 1 for prime in primes())


def test_residues_follow_the_arithmetic_of_fractions() -> None:
    a, b = Fraction(7, 3), Fraction(-5, 11)
    for exact, residues in (
        (a + b, large(a) + b),
        (a - b, a - large(b)),
        (a * b, large(a) * large(b)),
        (a / b, a / large(b)),
        (-a, -large(a)),
        (a**5, large(a) ** 5),
        (a**-5, large(a) ** -5),
    ):
        assert residues == large(exact)


def test_one_off_is_another_number() -> None:
    assert large(2) ** 10**12 == large(4) ** (5 * 10**11)
    assert large(2) ** 10**12 + 1 != large(4) ** (5 * 10**11)


@pytest.mark.parametrize("operation", [abs, lambda x: x + 0.5, lambda x: 1 / (x - x), lambda x: x * 1j])
def test_what_residues_do_not_tell_is_unknown(operation: object) -> None:
    """Sign, and arithmetic with numbers that are not rational."""
    assert callable(operation)
    with pytest.raises(UnknownError):
        operation(Large(large(3).residues))


@pytest.mark.parametrize(("value", "degree", "root"), [(9, 2, 3), (8, 3, 2), (10, 2, None), (10**60, 20, 1000), (0, 5, 0)])
def test_roots_are_exact_or_none(value: int, degree: int, root: int | None) -> None:
    assert exact_root(value, degree) == root
