"""Rational numbers that are too large to write out, known by their residues modulo several primes of 128 bits.

Two of them with different residues differ: that is a proof. Two with equal residues are taken for equal: different numbers that
nobody made to collide agree in all of them with a probability below 2^-750 (the identity test of Schwartz, Zippel and DeMillo
and Lipton, with a random modulus instead of a random point).
"""

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Any

from filters.maths.tokens import UnknownError

PRIMES = 6
_BITS = 128
_WITNESSES = (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53)


@lru_cache
def primes() -> tuple[int, ...]:
    """The moduli: primes that have nothing to do with the numbers of an exercise."""
    found = []
    for number in range(PRIMES):
        digest = hashlib.sha256(f"a modulus of thresher, {number}".encode()).digest()
        candidate = int.from_bytes(digest[: _BITS // 8]) | 1 << (_BITS - 1) | 1
        while not _is_prime(candidate):
            candidate += 2
        found.append(candidate)
    return tuple(found)


def _is_prime(number: int) -> bool:
    """Whether an odd number is a prime, by the test of Miller and Rabin."""
    twos = (number - 1 & -(number - 1)).bit_length() - 1
    for witness in _WITNESSES:
        power = pow(witness, number - 1 >> twos, number)
        if power not in (1, number - 1) and not any((power := power * power % number) == number - 1 for _ in range(twos - 1)):
            return False
    return True


@dataclass(frozen=True, slots=True)
class Large:
    """A rational number: its residue modulo each of `primes`."""

    residues: tuple[int, ...]

    def __add__(self, other: Any) -> "Large":
        return self._with(other, lambda a, b, _: a + b)

    def __sub__(self, other: Any) -> "Large":
        return self._with(other, lambda a, b, _: a - b)

    def __mul__(self, other: Any) -> "Large":
        return self._with(other, lambda a, b, _: a * b)

    def __truediv__(self, other: Any) -> "Large":
        return self._with(other, lambda a, b, prime: a * _inverse(b, prime))

    def __rtruediv__(self, other: Any) -> "Large":
        inverse: Large = large(other) / self
        return inverse

    def __neg__(self) -> "Large":
        return self * -1

    __radd__, __rmul__ = __add__, __mul__

    def __rsub__(self, other: Any) -> "Large":
        return (-self)._with(other, lambda a, b, _: a + b)

    def __abs__(self) -> "Large":
        raise UnknownError("the sign of an enormous number")

    def __pow__(self, exponent: int) -> "Large":
        return Large(tuple(pow(_inverse(a, p) if exponent < 0 else a, abs(exponent), p) for a, p in self._pairs()))

    def _with(self, other: Any, operation: Callable[[int, int, int], int]) -> "Large":
        if not isinstance(other, int | Fraction | Large):
            raise UnknownError("an enormous number with an irrational one")
        others = large(other).residues
        return Large(tuple(operation(a, b, p) % p for (a, p), b in zip(self._pairs(), others, strict=True)))

    def _pairs(self) -> "zip[tuple[int, int]]":
        return zip(self.residues, primes(), strict=True)


def large(value: "int | Fraction | Large") -> Large:
    """A number by its residues. Raises UnknownError where its denominator has none."""
    if isinstance(value, Large):
        return value
    above, below = value.numerator, value.denominator
    return Large(tuple(above * _inverse(below, prime) % prime for prime in primes()))


def _inverse(value: int, prime: int) -> int:
    if value % prime == 0:
        raise UnknownError("an enormous number as a divisor that may be 0")
    return pow(value, -1, prime)


def exact_root(value: int, degree: int) -> int | None:
    """The exact root of an integer of at least 0; None if it has none, or is too large to tell."""
    from mpmath import mp

    if degree == 2 or value < 2:
        root = math.isqrt(value) if degree == 2 else value
    elif value.bit_length() > 380 * degree:
        return None
    else:
        root = int(mp.nint(mp.root(value, degree)))
    return root if root**degree == value else None
