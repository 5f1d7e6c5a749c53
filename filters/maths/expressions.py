"""Evaluate mathematical expressions, LaTeX or plain, with a recursive-descent parser: exactly where the value is rational, to 120
digits over mpmath where it is not.

Variables get fixed pseudo-random rational values, so two expressions in variables count as equal if they agree at three points.
By the Schwartz-Zippel lemma, different polynomials agree there with a probability of practically 0. Syntax that the parser does
not know raises UnknownError: it never guesses. A rational number of more than MOST_BITS bits is known by its residues (large.py).
"""

import hashlib
import math
import re
from collections.abc import Callable
from fractions import Fraction
from typing import Any

from filters.maths.guard import MOST_DEPTH
from filters.maths.large import Large, exact_root, large
from filters.maths.tokens import FUNCTIONS, GREEK, UnknownError, tokens_of

DIGITS = 120
EQUAL = 1e-90
"""Two values of which one at least is irrational are equal if they differ by less than this share of the larger."""
ZERO = 1e-105  # below it an irrational value is 0
POINTS = 3
MOST_FACTORIAL = 5_000
MOST_BITS = 1 << 17
"""Most bits of a numerator or denominator: 39,000 digits."""

_OF_LARGE = frozenset(("log", "ln", "lg", "sqrt", "abs", "floor", "ceil"))
_OF_INTEGERS: dict[str, Callable[..., int]] = {"gcd": math.gcd, "lcm": math.lcm}
_OF_ANGLES = frozenset(("sin", "cos", "tan", "cot", "sec", "csc"))
_COUNTED = re.compile(r"[CPA]_\d+")


def values(text: str) -> list[Any]:
    """The values of an expression, fractions or numbers of mpmath, at each of POINTS points; a single one without variables.

    Raises UnknownError, and ZeroDivisionError or ValueError if it has no value.
    """
    from mpmath import mp

    mp.dps = DIGITS
    tokens = tokens_of(text)
    parser = _Parser(tokens, 0)
    results = [parser.whole()]
    if parser.variables:
        results += [_Parser(tokens, point).whole() for point in range(1, POINTS)]
    return results


def equal_values(first: list[Any], second: list[Any]) -> bool:
    """Whether two lists of values are equal at every point."""
    length = max(len(first), len(second))
    return all(_close(a, b) for a, b in zip(_stretched(first, length), _stretched(second, length), strict=True))


def _stretched(results: list[Any], length: int) -> list[Any]:
    return results * length if len(results) == 1 else results


def _close(a: Any, b: Any) -> bool:
    if isinstance(a, int | Fraction) and isinstance(b, int | Fraction):
        return a == b
    if isinstance(a, Large) or isinstance(b, Large):
        return bool(a - b == large(0))
    from mpmath import mp

    a, b = mp.mpmathify(a), mp.mpmathify(b)
    if mp.isnan(a) or mp.isnan(b):
        return False
    if mp.isinf(a) or mp.isinf(b):
        return bool(a == b)
    largest = max(abs(a), abs(b))
    return bool(largest < ZERO or abs(a - b) <= EQUAL * largest)


def _bounded(value: Any) -> Any:
    if isinstance(value, Fraction) and max(value.numerator.bit_length(), value.denominator.bit_length()) > MOST_BITS:
        return large(value)
    return value


def _integer(value: Any, least: int, most: int, what: str) -> int:
    if not isinstance(value, Fraction) or value.denominator != 1 or not least <= value <= most:
        raise UnknownError(what)
    return value.numerator


class _Parser:
    """Evaluates one list of tokens at one point; each method reads one rule of the grammar."""

    def __init__(self, tokens: list[str], point: int) -> None:
        from mpmath import mp

        self.mp, self.tokens, self.point, self.position, self.depth = mp, tokens, point, 0, 0
        self.variables: set[str] = set()
        self.angles = 0

    def whole(self) -> Any:
        value = self.sum()
        if self.position < len(self.tokens):
            raise UnknownError(f"{self.tokens[self.position]!r} after the expression")
        return value

    def peek(self) -> str:
        return self.tokens[self.position] if self.position < len(self.tokens) else ""

    def take(self, wanted: str = "") -> str:
        mark = self.peek()
        if not mark or (wanted and mark != wanted):
            raise UnknownError(f"wanted {wanted or 'more'}, found {mark or 'the end'!r}")
        self.position += 1
        return mark

    def sum(self) -> Any:
        self.depth += 1
        if self.depth > 3 * MOST_DEPTH:
            raise UnknownError("nested too deep")
        value = self.signed_product()
        while self.peek() in ("+", "-"):
            value = _bounded(value + (1 if self.take() == "+" else -1) * self.product())
        self.depth -= 1
        return value

    def sign(self) -> int:
        sign = 1
        while self.peek() in ("+", "-"):
            sign = -sign if self.take() == "-" else sign
        return sign

    def signed_product(self) -> Any:
        return self.sign() * self.product()

    def product(self) -> Any:
        value = self.power()
        while True:
            mark = self.peek()
            if mark in ("*", "\\cdot", "\\times", "\\ast"):
                self.take()
                value = _bounded(value * self.signed_power())
            elif mark in ("/", "\\div"):
                self.take()
                value = self.quotient(value, self.signed_power())
            elif mark and self.starts_factor(mark):
                if self.tokens[self.position - 1][0].isdigit() and mark[0].isdigit():
                    raise UnknownError("two numbers side by side")
                value = _bounded(value * self.power())
            else:
                return value

    def quotient(self, above: Any, below: Any) -> Any:
        if below == 0:
            raise ZeroDivisionError
        exact = isinstance(above, Fraction | Large) and isinstance(below, Fraction | Large)
        return _bounded(above / below if exact else self.mp.mpmathify(above) / below)

    def raised(self, value: Any, exponent: Any) -> Any:
        """A power: exact where base and exponent are rational and the result is."""
        if isinstance(exponent, Large):
            raise UnknownError("an enormous power")
        if isinstance(value, Large):
            return value ** _integer(exponent, -(1 << MOST_BITS), 1 << MOST_BITS, "a root of an enormous number")
        if value == 0 and self.mp.re(exponent) < 0:
            raise ZeroDivisionError
        if isinstance(value, Fraction) and isinstance(exponent, Fraction):
            above, below = value.numerator, value.denominator
            power, degree = exponent.numerator, exponent.denominator
            if degree == 1:
                if abs(value) == 1 or value == 0:
                    return value ** (power % 2 if value else power)
                if max(above.bit_length(), below.bit_length()) * abs(power) > MOST_BITS:
                    return large(value) ** power
                return value**power
            if above >= 0 and degree <= 64:
                roots = exact_root(above, degree), exact_root(below, degree)
                if roots[0] is not None and roots[1] is not None:
                    return self.raised(Fraction(roots[0], roots[1]), Fraction(power))
        if abs(exponent) > 10**12:
            raise UnknownError("an enormous power")
        return self.mp.power(value, exponent)

    def signed_power(self) -> Any:
        return self.sign() * self.power()

    def starts_factor(self, mark: str) -> bool:
        if mark[0] == "\\":
            return mark not in ("\\cup", "\\cap", "\\pm", "\\mp", "\\to", "\\%", "\\rfloor", "\\rceil")
        return mark[0].isalnum() or mark in ("(", "{", "[", ".", "\u221e", "\u00b0")

    def power(self) -> Any:
        value = self.postfix(self.primary())
        if self.peek() == "^":
            self.take()
            following = self.tokens[self.position : self.position + 3]
            if following[:1] == ["\\circ"] or following == ["{", "\\circ", "}"]:
                raise UnknownError("degrees")
            value = self.postfix(self.raised(value, self.exponent()))
        return value

    def exponent(self) -> Any:
        sign = self.sign()
        if self.peek() == "{":
            return sign * self.group("{", "}")
        return sign * self.power()

    def postfix(self, value: Any) -> Any:
        while self.peek() in ("!", "%", "\\%", "'"):
            mark = self.take()
            if mark == "'" or (mark == "!" and self.peek() == "!"):
                raise UnknownError("a derivative" if mark == "'" else "a double factorial")
            value = Fraction(math.factorial(_integer(value, 0, MOST_FACTORIAL, "a factorial"))) if mark == "!" else value / 100
        return value

    def group(self, opening: str, closing: str) -> Any:
        self.take(opening)
        value = self.sum()
        self.take(closing)
        return value

    def primary(self) -> Any:
        mark = self.peek()
        if not mark:
            raise UnknownError("an end")
        if mark[0].isdigit() or mark[0] == ".":
            number = self.take()
            return Fraction(int(number)) if number.isdigit() else Fraction(number if number[-1] != "." else number[:-1])
        for opening, closing in (("(", ")"), ("{", "}"), ("[", "]"), ("\\lfloor", "\\rfloor"), ("\\lceil", "\\rceil")):
            if mark == opening:
                value = self.group(opening, closing)
                return value if len(mark) == 1 else self.rounded(mark[2:], value)
        if mark in ("|", "\\|"):
            self.take()
            value = self.sum()
            self.take(mark)
            return abs(value)
        if mark == "\u221e":
            self.take()
            return self.mp.inf
        if mark[0] == "\\":
            return self.command(self.take()[1:])
        if mark == "\u00b0" and self.angles:
            self.take()
            return self.mp.pi / 180
        if mark.isalpha():
            return self.letter(self.take())
        raise UnknownError(f"{mark!r}")

    def letter(self, name: str) -> Any:
        if name == "e" and self.peek() != "_":
            return self.mp.e
        if name == "i" and self.peek() != "_":
            return self.mp.j
        return self.variable(name)

    def variable(self, name: str) -> Any:
        if self.peek() == "_":
            self.take()
            name += "_" + self.subscript()
        if self.peek() == "^" and _COUNTED.fullmatch(name):
            raise UnknownError("a number of choices, or a power")  # C_5^2 may be 10
        self.variables.add(name)
        digest = hashlib.blake2b(f"{name} {self.point}".encode(), digest_size=8).digest()
        return Fraction(193_987 + int.from_bytes(digest) % 2_097_143, 1 << 19)  # between 0.37 and 4.37

    def subscript(self) -> str:
        if self.peek() != "{":
            return self.take()
        self.take("{")
        name = ""
        while self.peek() != "}":
            name += self.take()
        self.take("}")
        return name

    def argument(self) -> Any:
        """The argument of a command: a group, or the next mark alone (`\\frac12`)."""
        mark = self.peek()
        if mark == "{":
            return self.group("{", "}")
        if mark[:1].isdigit() and len(mark) > 1 and mark.isdigit():
            self.tokens[self.position : self.position + 1] = list(mark)
            mark = self.peek()
        return self.primary()

    def command(self, name: str) -> Any:
        if name in ("frac", "dfrac", "tfrac", "cfrac"):
            self.tokens = list(self.tokens)
            above = self.argument()
            return self.quotient(above, self.argument())
        if name in ("binom", "dbinom", "tbinom"):
            self.tokens = list(self.tokens)
            above = _integer(self.argument(), 0, MOST_BITS, "a binomial coefficient")
            return self.chosen(above, _integer(self.argument(), 0, MOST_BITS, "a binomial coefficient"))
        if name in ("gcd", "lcm", "max", "min"):
            return self.of_several(name)
        if name == "sqrt":
            return self.root()
        if name == "pi":
            return self.mp.pi
        if name == "infty":
            return self.mp.inf
        if name in FUNCTIONS:
            return self.function(name)
        if name in GREEK:
            return self.variable("\\" + name)
        raise UnknownError(f"\\{name}")

    def root(self) -> Any:
        degree = self.group("[", "]") if self.peek() == "[" else Fraction(2)
        self.tokens = list(self.tokens)
        return self.rooted(self.argument(), degree)

    def rooted(self, value: Any, degree: Any) -> Any:
        if not isinstance(degree, Fraction):
            raise UnknownError("a root of another degree than a number")
        if degree == 0:
            raise ZeroDivisionError
        if self.mp.im(value) == 0 and self.mp.re(value) < 0 and degree.denominator == 1 and degree.numerator % 2:
            return -self.raised(-value, 1 / degree)
        return self.raised(value, 1 / degree)

    def chosen(self, above: int, below: int) -> Fraction:
        """A binomial coefficient."""
        if min(below, abs(above - below)) * above.bit_length() > MOST_BITS:
            raise UnknownError("an enormous binomial coefficient")
        return Fraction(math.comb(above, below))

    def of_several(self, name: str) -> Any:
        """A function of numbers between commas."""
        self.take("(")
        values = [self.sum()]
        while self.peek() == ",":
            self.take()
            values.append(self.sum())
        self.take(")")
        if self.variables or not all(isinstance(value, Fraction) for value in values):
            raise UnknownError(f"a {name} of other than rational numbers")
        if name in _OF_INTEGERS:
            if any(value.denominator != 1 for value in values):
                raise UnknownError(f"a {name} of fractions")
            return Fraction(_OF_INTEGERS[name](*(value.numerator for value in values)))
        return max(values) if name == "max" else min(values)

    def rounded(self, name: str, value: Any) -> Any:
        """Rounded down (`floor`) or up (`ceil`); only of a rational number it is known on which side of an integer it is."""
        if not isinstance(value, Fraction):
            if not abs(value) < 10 ** (DIGITS // 2) or self.mp.im(value) or abs(value - self.mp.nint(value)) < EQUAL**0.5:
                raise UnknownError(f"the {name} of a number that may be an integer")
            value = Fraction(int(self.mp.floor(value))) + Fraction(1, 2)
        return Fraction(math.floor(value) if name == "floor" else math.ceil(value))

    def function(self, name: str) -> Any:
        base: Any = None
        exponent: Any = None
        if name in ("log", "lg") and self.peek() == "_":
            self.take()
            self.tokens = list(self.tokens)
            base = self.argument()
        if self.peek() == "^":
            self.take()
            exponent = self.exponent()
        self.angles += name in _OF_ANGLES
        if self.peek() in ("(", "{", "[", "|"):
            value = self.primary()
        else:  # \sin 2x, up to the next sum or function
            value = self.power()
            while (mark := self.peek()) and self.starts_factor(mark) and mark[1:] not in FUNCTIONS and mark not in ("(", "["):
                value = value * self.power()
        self.angles -= name in _OF_ANGLES
        if name in ("log", "ln", "lg") and value == 0:
            raise ZeroDivisionError
        if name not in _OF_LARGE and abs(value) > 10**12:
            raise UnknownError(f"{name} of an enormous number")
        result = self.quotient(self.mp.log(value), self.mp.log(base)) if base is not None else self.functions()[name](value)
        if exponent is None:
            return result
        if exponent == -1 and name in ("sin", "cos", "tan"):
            return self.functions()["arc" + name](value)
        return self.raised(result, exponent)

    def functions(self) -> dict[str, Callable[[Any], Any]]:
        mp = self.mp
        return {
            "sin": mp.sin, "cos": mp.cos, "tan": mp.tan, "cot": mp.cot, "sec": mp.sec, "csc": mp.csc,
            "arcsin": mp.asin, "arccos": mp.acos, "arctan": mp.atan, "asin": mp.asin, "acos": mp.acos, "atan": mp.atan,
            "sinh": mp.sinh, "cosh": mp.cosh, "tanh": mp.tanh, "ln": mp.log, "log": self.log, "lg": mp.log10, "exp": mp.exp,
            "sqrt": lambda value: self.rooted(value, Fraction(2)), "abs": abs,
            "floor": lambda value: self.rounded("floor", value), "ceil": lambda value: self.rounded("ceil", value),
        }  # fmt: skip

    def log(self, value: Any) -> Any:
        """A logarithm without a base may have any base, so its value is one that only it has: it equals itself alone."""
        self.variables.add("log")
        return self.mp.log(value) * (self.mp.mpf("1.7") + self.point)
