"""Evaluate mathematical expressions, LaTeX or plain, to 60 digits, with a recursive-descent parser over mpmath.

Variables get fixed pseudo-random values, so two expressions in variables count as equal if they agree at three points. By the
Schwartz-Zippel lemma, different polynomials agree there with a probability of practically 0. Syntax that the parser does not know
raises UnknownError: it never guesses.
"""

import hashlib
from collections.abc import Callable
from typing import Any

from filters.maths.guard import MOST_DEPTH
from filters.maths.tokens import FUNCTIONS, UnknownError, tokens_of

DIGITS = 60
EQUAL = 1e-30
"""Two values are equal if they differ by less than this share of the larger."""
ZERO = 1e-45
POINTS = 3
MOST_FACTORIAL = 2_000

_OF_ANGLES = frozenset(("sin", "cos", "tan", "cot", "sec", "csc"))
_LETTERS = (
    "alpha beta gamma delta epsilon varepsilon zeta eta theta vartheta kappa lambda mu nu xi rho sigma tau phi varphi chi psi "
    "omega Gamma Delta Theta Lambda Xi Sigma Phi Psi Omega ell hbar"
)
_GREEK = frozenset(_LETTERS.split())


def values(text: str) -> list[Any]:
    """The values of an expression (mpmath complex numbers) at each of POINTS points; a single one if it has no variables.

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
    from mpmath import mp

    if mp.isnan(a) or mp.isnan(b):
        return False
    if mp.isinf(a) or mp.isinf(b):
        return bool(a == b)
    largest = max(abs(a), abs(b))
    return bool(largest < ZERO or abs(a - b) <= EQUAL * largest)


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
            value = value + self.product() if self.take() == "+" else value - self.product()
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
                value = value * self.signed_power()
            elif mark in ("/", "\\div"):
                self.take()
                value = value / self.signed_power()
            elif mark and self.starts_factor(mark):
                if self.tokens[self.position - 1][0].isdigit() and mark[0].isdigit():
                    raise UnknownError("two numbers side by side")
                value = value * self.power()
            else:
                return value

    def signed_power(self) -> Any:
        return self.sign() * self.power()

    def starts_factor(self, mark: str) -> bool:
        if mark[0] == "\\":
            return mark not in ("\\cup", "\\cap", "\\pm", "\\mp", "\\to", "\\%")
        return mark[0].isalnum() or mark in ("(", "{", "[", ".", "\u221e", "\u00b0")

    def power(self) -> Any:
        value = self.postfix(self.primary())
        if self.peek() == "^":
            self.take()
            following = self.tokens[self.position : self.position + 3]
            if following[:1] == ["\\circ"] or following == ["{", "\\circ", "}"]:
                raise UnknownError("degrees")
            exponent = self.exponent()
            if value == 0 and self.mp.re(exponent) < 0:
                raise ZeroDivisionError
            if abs(exponent) > 1e12:
                raise UnknownError("an enormous power")
            value = self.mp.power(value, exponent)
            value = self.postfix(value)
        return value

    def exponent(self) -> Any:
        sign = self.sign()
        if self.peek() == "{":
            return sign * self.group("{", "}")
        return sign * self.power()

    def postfix(self, value: Any) -> Any:
        while self.peek() in ("!", "%", "\\%", "'"):
            mark = self.take()
            if mark == "'":
                raise UnknownError("a derivative")
            if mark == "!":
                if value != self.mp.floor(self.mp.re(value)) or not 0 <= self.mp.re(value) <= MOST_FACTORIAL:
                    raise UnknownError("a factorial")
                value = self.mp.factorial(value)
            else:
                value = value / 100
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
            return self.mp.mpf(self.take())
        for opening, closing in (("(", ")"), ("{", "}"), ("[", "]")):
            if mark == opening:
                return self.group(opening, closing)
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
        self.variables.add(name)
        digest = hashlib.blake2b(f"{name} {self.point}".encode(), digest_size=8).digest()
        return self.mp.mpf(int.from_bytes(digest)) / 2**62 + self.mp.mpf("0.37")

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
            below = self.argument()
            return above / below
        if name == "sqrt":
            return self.root()
        if name == "pi":
            return self.mp.pi
        if name == "infty":
            return self.mp.inf
        if name in FUNCTIONS:
            return self.function(name)
        if name in _GREEK:
            return self.variable("\\" + name)
        raise UnknownError(f"\\{name}")

    def root(self) -> Any:
        degree = self.group("[", "]") if self.peek() == "[" else 2
        self.tokens = list(self.tokens)
        value = self.argument()
        if degree == 2:
            return self.mp.sqrt(value)
        if degree == 0:
            raise ZeroDivisionError
        if self.mp.im(value) == 0 and self.mp.re(value) < 0 and degree == self.mp.floor(degree) and int(degree) % 2:
            return -self.mp.power(-value, 1 / self.mp.mpf(degree))
        return self.mp.power(value, 1 / self.mp.mpf(degree))

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
        result = self.mp.log(value) / self.mp.log(base) if base is not None else self.functions()[name](value)
        if exponent is None:
            return result
        if exponent == -1 and name in ("sin", "cos", "tan"):
            return self.functions()["arc" + name](value)
        return self.mp.power(result, exponent)

    def functions(self) -> dict[str, Callable[[Any], Any]]:
        mp = self.mp
        return {
            "sin": mp.sin, "cos": mp.cos, "tan": mp.tan, "cot": mp.cot, "sec": mp.sec, "csc": mp.csc,
            "arcsin": mp.asin, "arccos": mp.acos, "arctan": mp.atan, "asin": mp.asin, "acos": mp.acos, "atan": mp.atan,
            "sinh": mp.sinh, "cosh": mp.cosh, "tanh": mp.tanh, "ln": mp.log, "log": self.log, "lg": mp.log10, "exp": mp.exp,
            "sqrt": mp.sqrt, "abs": abs, "floor": mp.floor, "ceil": mp.ceil,
        }  # fmt: skip

    def log(self, value: Any) -> Any:
        """A logarithm without a base may have any base, so its value is one that only it has: it equals itself alone."""
        self.variables.add("log")
        return self.mp.log(value) * (self.mp.mpf("1.7") + self.point)
