"""Split a mathematical expression into tokens."""

import re

_TOKEN = re.compile(r"\s*(?:(\d+(?:\.\d*)?|\.\d+)|(\\[A-Za-z]+|\\[|%])|([A-Za-z\u00b0\u221e])|([-+*/^_!()\[\]{}|,=<>']))")
_FUNCTION_NAMES = "sin cos tan cot sec csc arcsin arccos arctan asin acos atan sinh cosh tanh ln log lg exp sqrt abs floor ceil"
FUNCTIONS = frozenset(_FUNCTION_NAMES.split())
_LETTERS = (
    "alpha beta gamma delta epsilon varepsilon zeta eta theta vartheta kappa lambda mu nu xi rho sigma tau phi varphi chi psi "
    "omega Gamma Delta Theta Lambda Xi Sigma Phi Psi Omega ell hbar"
)
GREEK = frozenset(_LETTERS.split())
_NAMES = FUNCTIONS | {"pi", "infty", "gcd", "lcm", "max", "min"}
_WORD = re.compile(r"(?<!\\)(?<![A-Za-z])[A-Za-z]{2,}")


class UnknownError(ValueError):
    """An expression with syntax that the parser does not know."""


def tokens_of(text: str) -> list[str]:
    """Numbers, commands, letters and signs. Raises UnknownError for words and signs that no expression has."""
    text = _WORD.sub(_known_word, text)
    tokens, position = [], 0
    text = text.rstrip()
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            raise UnknownError(f"{text[position : position + 10]!r}")
        tokens.append(match.group().strip())
        position = match.end()
    if not tokens:
        raise UnknownError("an empty expression")
    return tokens


def _known_word(match: "re.Match[str]") -> str:
    word = match.group()
    if word in _NAMES:
        return f"\\{word} "
    if word in ("inf", "infinity", "oo"):
        return "\\infty "
    if len(word) > 2:
        raise UnknownError(f"the word {word[:20]!r}")
    return word
