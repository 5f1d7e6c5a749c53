"""Bring answers into one form: remove LaTeX that only affects layout, and replace signs that look alike by one of them.

Plain numbers and equal texts, which most answers are, are compared here without parsing an expression."""

import re
import unicodedata
from decimal import Decimal

from filters.maths.quantities import unit_of

_OUTSIDE = " \t\r\n$*`"
_NUMBER = re.compile(r"[+-]?(?:\d{1,3}(?:,\d{3})+|\d{1,4000})(?:\.\d{0,4000})?|[+-]?\.\d{1,4000}", re.ASCII)
_TEXT = re.compile(
    r"\\(?:text|mathrm|textrm|textbf|mathbf|textit|mathit|mathsf|operatorname|mbox|hbox|bold|rm|boldsymbol)\s*\{([^{}]*)\}"
)
_BOX = re.compile(r"^\\(?:boxed|fbox)\s*\{(.*)\}$", re.DOTALL)
_LAYOUT = re.compile(
    r"\\(?:left|right|displaystyle|textstyle|bigl|bigr|big|Big|Bigl|Bigr|limits|hspace\{[^{}]*\}|quad|qquad|phantom\{[^{}]*\})(?![A-Za-z])"
)
_SPACE = re.compile(r"\\[,;:! ]|~|\\\\(?=\s*$)")
_IN_BRACKETS = re.compile(
    r"(?:(?<=[\d}])\s*\(\s*(?P<name>[A-Za-z\u00b0%$][A-Za-z0-9 /^{}\u00b0.-]{1,30})|(?<=\d)\s+\(\s*(?P<letter>[A-Za-z]))\s*\)\s*$"
)
"""A unit after its number: 9 (apples), 72 (km/h)."""
_PER_CENT = re.compile(r"\bper\s+cent\b")
_ROW_BREAK = re.compile(
    r"\\\\\*?(?:\s*\[\s*-?[\d.]*\s*(?:pt|em|ex|cm|mm|in|pc|\\[a-z]+)\s*\])?|\\(?:tabularnewline|cr)(?![A-Za-z])"
)
_ROW = "\ue001"
_SEPARATOR = re.compile(r"(?<=\d)\s*,\s*(?:\\!\s*)+(?=\d)")
_ALIKE = {
    "\u2212": "-", "\u2013": "-", "\u2014": "-", "\u00d7": "*", "\u22c5": "*", "\u00b7": "*", "\u2217": "*", "\u00f7": "/",
    "\u2044": "/", "\u2215": "/", "\u03c0": "\\pi ", "\u221e": "\\infty ", "\u2264": "\\le ", "\u2265": "\\ge ",
    "\u2260": "\\ne ", "\u00b1": "\\pm ", "\u2208": "\\in ", "\u222a": "\\cup ", "\u2229": "\\cap ", "\u2205": "\\emptyset ",
    "\u2032": "'", "\u00ba": "\u00b0", "\u02da": "\u00b0", "\u03b8": "\\theta ", "\u03b1": "\\alpha ", "\u03b2": "\\beta ",
    "\u27e8": "(", "\u27e9": ")", "\u03c6": "\\phi ", "\u03bb": "\\lambda ", "\u00b5": "\u03bc",
}  # fmt: skip
_SUPER = str.maketrans("\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079\u207b", "0123456789-")
_RAISED = re.compile("[\u2070\u00b9\u00b2\u00b3\u2074-\u2079\u207b]+")
_HALVES = re.compile(r"(\d?)([\u00bc-\u00be\u2150-\u215e])")
_ROOT = re.compile("\u221a\\s*(\\([^()]*\\)|\\d+(?:\\.\\d+)?|[A-Za-z])")
_DEGREE = re.compile(r"\^\s*\{?\s*\\circ\s*\}?|\\degree(?![A-Za-z])|\\circ(?![A-Za-z])")


def cleaned(text: str) -> str:
    """The form in which answers are compared. Takes time linear in the length of the text."""
    text = text.strip()
    boxed = _BOX.match(text)
    text = boxed.group(1) if boxed else text
    if "\\begin{" in text:  # the end of a row, whatever stands beside it
        text = _ROW_BREAK.sub(_ROW, text)
    if not text.isascii():
        text = _HALVES.sub(lambda m: f"{m[1]} " * bool(m[1]) + unicodedata.normalize("NFKC", m[2]), text)
        text = _RAISED.sub(lambda m: "^{" + m[0].translate(_SUPER) + "}", text)
        text = _ROOT.sub(lambda m: "\\sqrt{" + m[1].strip("()") + "}", text)
        for mark, plain in _ALIKE.items():
            text = text.replace(mark, plain)
        text = unicodedata.normalize("NFKC", text)
    for mark in ("$", "\\(", "\\)", "\\[", "\\]", "**", "`"):
        if mark == "$":
            text = re.sub(r"\\\$|\$(?=\s*[\d.]+(?![^$]*\$))", "\ue000", text).replace("$", "").replace("\ue000", "$ ")
        elif mark in text and mark != "**":
            text = text.replace(mark, " ")
    if text.startswith("**") or text.endswith("**"):
        text = text.strip("*")
    text = text.replace("\\langle", "(").replace("\\rangle", ")")
    text = text.replace("\\{", "\u27e8").replace("\\}", "\u27e9").replace("\\lbrace", "\u27e8").replace("\\rbrace", "\u27e9")
    text = _LAYOUT.sub("", _SEPARATOR.sub(",", text).replace("\\!", ""))
    text = text.replace("{,}", ",")
    text = _SPACE.sub(" ", text)
    text = _DEGREE.sub("\u00b0", text)
    text = text.replace("\\%", "%").replace("\\dfrac", "\\frac").replace("\\tfrac", "\\frac").replace("\\cfrac", "\\frac")
    text = re.sub(r"\\(?:le|leq|leqslant)(?![A-Za-z])", "<=", text).replace("\\lt", "<")
    text = re.sub(r"\\(?:ge|geq|geqslant)(?![A-Za-z])", ">=", text).replace("\\gt", ">")
    for _ in range(3):
        text, replaced = _TEXT.subn(lambda m: m[1] if m[1] in ("e", "i", "d", "") else f" {m[1]} ", text)
        if not replaced:
            break
    if text.rstrip().endswith(")"):
        text = _IN_BRACKETS.sub(_unbracketed, text)
    if "per" in text:
        text = _PER_CENT.sub("percent", text)
    text = " ".join(text.split()).replace(_ROW, "\\\\")
    return text.removesuffix(".").strip() if not text.endswith("..") else text


def _unbracketed(match: "re.Match[str]") -> str:
    """A unit in brackets without them; any other text as it was."""
    name = (match["name"] or match["letter"]).strip()
    return match[0] if unit_of(name, attached=False) is None else f" {name}"


def number_of(text: str) -> Decimal | None:
    """The number that a text is, with or without thousands separators; None for any other text."""
    text = text.strip(_OUTSIDE).removesuffix(".")
    if not _NUMBER.fullmatch(text):
        return None
    return Decimal(text.replace(",", ""))


def same(gold: str, answer: str) -> bool | None:
    """Whether two answers are equal; None if this module cannot decide."""
    if gold == answer:
        return True
    first = number_of(gold)
    if first is None:
        return True if gold.strip(_OUTSIDE) == answer.strip(_OUTSIDE) else None
    second = number_of(answer)
    return None if second is None else first == second
