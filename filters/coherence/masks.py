"""Find the characters of a text that are not prose: code, formulas, markup and web addresses."""

import re
import unicodedata

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Bits = npt.NDArray[np.bool_]
Bytes = npt.NDArray[np.uint8]
Codes = npt.NDArray[np.uint32]
Spans = tuple[Ints, Ints]
"""Starts and ends, in characters of the page."""

SPACE, LOWER, UPPER, LETTER, DIGIT, POINT, SYMBOL, OTHER = range(8)
"""Kinds of characters. LETTER is a letter outside ASCII, POINT the punctuation of prose, SYMBOL the punctuation of code."""

_CODE = "{}[]<>=;_/\\|&*+%$#@^~`"
_POINTS = ".,;:!?'\"()-\u2018\u2019\u201c\u201d\u2013\u2014\u2026"
_MASKED = re.compile(
    # Fenced code, up to the end of the text if the fence is never closed.
    r"```[^\x00]*?(?:```|(?=\x00))"
    r"|``[^`\n\x00]+``|`[^`\n\x00]*`"
    # A formula ends with its line or paragraph, so an unclosed one hides no more than that and no search is long.
    r"|\$\$(?:[^$\x00\n]|\n(?!\n))*(?:\$\$)?"
    r"|\$(?=[^\s$])[^$\n\x00]*(?<=[^\s$])\$(?!\d)"
    r"|\\\((?:[^\\\n\x00]|\\[^)\n\x00])*(?:\\\))?"
    r"|\\\[(?:[^\\\x00\n]|\\[^\]\x00\n]|\n(?!\n))*(?:\\\])?"
    r"|\\begin\{(?:[^\\\x00\n]|\\(?!end\{)|\n(?!\n))*(?:\\end\{\w*\*?\})?"
    r"|\\[a-zA-Z]+(?:\{[^{}\n\x00]*\})*"
    # A formula of reStructuredText: the directive's line, and the indented lines below it.
    r"|(?m:^[ \t]*\.\. math::[^\n\x00]*(?:\n[ \t]*(?=\n)|\n[ \t]{3}[^\n\x00]*)*)"
    # Handles and addresses of people.
    r"|(?<=[\s(\[\x00])@[\w-]+|(?<![\w.+-])[\w.+-]{1,64}@[\w-]+(?:\.[\w-]+)+"
    r"|<(?=[a-zA-Z/!])[^<>\n\x00]*>"
    r"|&[a-z]+;|\]\[[^\[\]\n\x00]*\]|\]\([^()\s\x00]*\)"
)
_CODE_LINE = re.compile(
    r"(?m)^[ \t]*(?:(?:def|class|return|if|elif|else|for|while|try|except|with|print|const|let|var|function|public"
    r"|private|static|void|int|struct|func|fn|use|package|SELECT|INSERT|UPDATE|CREATE)\b[^\n\x00]*[:;{(,)}]"
    r"|from [\w.]+ import [^\n\x00]*|(?:#include|#define|//|/\*|\*/|>>>|\$ |@\w+\b(?! \w))[^\n\x00]*"
    r"|[\w.\[\]]+ ?[-+*/]?= ?[^\n\x00]*|import [\w., ]+)$"
)


def _kinds() -> Bytes:
    """Kind of each character up to U+FFFF."""
    kinds = np.full(65536, OTHER, np.uint8)
    for code in range(65536):
        category = unicodedata.category(chr(code))
        if category[0] == "L" or category in ("Mn", "Mc"):
            kinds[code] = LETTER
        elif category[0] == "Z" or category == "Cc":
            kinds[code] = SPACE
    kinds[33:127] = SYMBOL
    kinds[48:58] = DIGIT
    kinds[97:123], kinds[65:91] = LOWER, UPPER
    kinds[[ord(sign) for sign in _POINTS]] = POINT
    return kinds


def _marks(signs: str) -> Bits:
    table = np.zeros(65536, bool)
    table[[ord(sign) for sign in signs]] = True
    return table


KINDS = _kinds()
CODE_SIGNS = _marks(_CODE)
_OPERATOR = _marks("+*/=^<>|\u2264\u2265\u00d7\u00f7\u00b7\u2248\u2260\u221a\u2192")
_FORMULA = _OPERATOR | _marks("-()[].,:;_%$\u03c0\u03b8\u2212\u00b2\u00b3")


def runs(inside: Bits) -> Spans:
    """Starts and ends of the runs of True."""
    edges = np.flatnonzero(np.diff(np.concatenate(([False], inside, [False])).view(np.int8)))
    return edges[::2], edges[1::2]


def counts_in(flags: Bits, spans: Spans) -> Ints:
    """How many flags are set in each span."""
    sums = np.concatenate(([0], np.cumsum(flags)))
    counts: Ints = sums[spans[1]] - sums[spans[0]]
    return counts


def covered(count: int, starts: Ints, ends: Ints) -> Bits:
    """Which of `count` characters lie in the spans. Spans must not overlap; empty ones are ignored."""
    steps = np.zeros(count + 1, np.int8)
    real = ends > starts
    np.add.at(steps, starts[real], 1)
    np.add.at(steps, ends[real], -1)
    return np.cumsum(steps[:-1]) > 0


def masked_characters(text: str, codes: Codes, kinds: Bytes, breaks: Bits) -> Bits:
    """Characters of fenced or inline code, formulas, markup and lines of code."""
    masked = np.zeros(len(codes), bool)
    for match in _MASKED.finditer(text):
        masked[match.start() : match.end()] = True
    return masked | _code_lines(text, kinds, CODE_SIGNS[np.minimum(codes, 0xFFFF)], breaks, masked)


def _code_lines(text: str, kinds: Bytes, signs: Bits, breaks: Bits, masked: Bits) -> Bits:
    """Lines that read as code without a fence: many signs of code, or the shape of a statement."""
    starts = np.flatnonzero(breaks)
    if len(starts) < 2:
        return np.zeros(len(kinds), bool)
    weight = np.add.reduceat((signs & ~masked).astype(np.int32), starts)
    filled = np.add.reduceat((kinds != SPACE).astype(np.int32), starts)
    lengths = np.diff(np.append(starts, len(kinds)))
    statement = np.zeros(len(starts), bool)
    lines = np.searchsorted(starts, [match.start() for match in _CODE_LINE.finditer(text)], side="right") - 1
    statement[lines.astype(np.int64)] = True
    # Code has its signs all over the line. One noisy word in a short sentence does not make the line code.
    tokens = runs(kinds != SPACE)
    signed = np.unique(np.searchsorted(tokens[0], np.flatnonzero(signs & ~masked), side="right"))
    signed_tokens = np.bincount(np.searchsorted(starts, tokens[0][signed - 1], side="right") - 1, minlength=len(starts))
    all_tokens = np.bincount(np.searchsorted(starts, tokens[0], side="right") - 1, minlength=len(starts))
    dense = (weight * 100 >= 14 * filled) & (weight >= 4)
    dense &= (signed_tokens * 4 >= all_tokens) & ((signed_tokens >= 2) | (all_tokens < 3))
    is_code = dense | (statement & (weight >= 1)) | (statement & (lengths < 60))
    # A line between two lines of code is code too (a comment, a docstring), and so is an indented line after a line of code.
    is_code[1:-1] |= is_code[:-2] & is_code[2:]
    first = np.minimum(starts + 1, len(kinds) - 1)
    is_code[1:] |= is_code[:-1] & (kinds[first[1:]] == SPACE) & (lengths[1:] > 1)
    return np.repeat(is_code, lengths)


def formulas(codes: Codes, kinds: Bytes, tokens: Spans) -> Bits:
    """Characters of tokens such as `f(x)=x^2+1` or `3*4=12`: an operator, no word, and only signs that formulas use."""
    letter = (kinds == LOWER) | (kinds == UPPER)
    in_word = letter.copy()
    in_word[2:] &= letter[1:-1] & letter[:-2]
    in_word[:2] = False
    capped = np.minimum(codes, 0xFFFF)
    foreign = ~(letter | (kinds == DIGIT) | _FORMULA[capped])
    # Letters of both cases side by side are not a product of variables.
    foreign[1:] |= letter[1:] & letter[:-1] & (kinds[1:] != kinds[:-1])
    unfit, operators = counts_in(in_word | foreign, tokens), counts_in(_OPERATOR[capped] & (kinds != SPACE), tokens)
    is_formula = (unfit == 0) & (operators > 0)
    return covered(len(codes), tokens[0][is_formula], tokens[1][is_formula])


def addresses(codes: Codes, tokens: Spans) -> Bits:
    """Scheme, path and query of web addresses; the host is left."""
    slash = codes == 47
    schemes = np.flatnonzero((codes[:-2] == 58) & slash[1:-1] & slash[2:])
    token, index = np.unique(np.searchsorted(tokens[0], schemes, side="right") - 1, return_index=True)
    hosts, ends = schemes[index] + 3, tokens[1][token]
    slashes = np.append(np.flatnonzero(slash), len(codes))
    paths = np.minimum(slashes[np.searchsorted(slashes, hosts)], ends)
    return covered(len(codes), tokens[0][token], np.minimum(hosts, ends)) | covered(len(codes), paths, ends)
