"""Which language a text is in, by py3langid (Lui and Baldwin 2012; github.com/adbar/py3langid).

Naive Bayes over byte n-grams, with probabilities that keep their meaning from a sentence to a page. Its model is part of its
package. Deterministic, about 50 us for a paragraph.
"""

import re
from functools import cache
from typing import Any

READ_CHARS = 4_000
"""Characters at the start of a text that are read."""
LEAST_LETTERS = 20
"""Letters below which no language is told."""
CONFIDENT = 0.6
"""Probability below which no language is told."""
_VARIETIES = {"zh": ("zh", "yue", "wuu"), "ar": ("ar", "ary", "arz"), "no": ("no", "nn")}
"""Labels that count as a language: varieties that share its written form."""
_KIN = (("hr", "bs", "sr"), ("id", "ms"), ("no", "nn", "da", "sv"), ("zh", "yue", "wuu"), ("ar", "ary", "arz"))
"""Languages of which a short text may be any."""
_CODES = {"nb": "no", "fil": "tl", "iw": "he", "in": "id"}
"""Other codes of a language."""
_NO_PROSE = re.compile(r"^(```|~~~).*?^\1|\$\$.*?\$\$|\$[^$\n]*\$|`[^`\n]*`", re.DOTALL | re.MULTILINE)
_LETTER = re.compile(r"[^\W\d_]")
_SENTENCE = re.compile(r"(?<=[.!?\u3002\uff01\uff1f])\s*|\n+")


def languages() -> list[str]:
    """The codes (ISO 639) of the languages that are told."""
    return sorted(_identifier().labels)


def is_in(text: str, language: str) -> bool | None:
    """Whether a text is in a language; None where it has fewer than LEAST_LETTERS letters, neither the language nor another has a
    probability of CONFIDENT, or one of its sentences is in the language and another is not. Code and formulas do not count.
    Raises ValueError for a code that is not known."""
    code = language.lower().replace("_", "-").partition("-")[0]
    code = _CODES.get(code, code)
    if code not in _identifier().labels:
        raise ValueError(f"language {language!r}; known are {', '.join(languages())}")
    text = _NO_PROSE.sub(" ", text)[:READ_CHARS]
    whole = _told(text, code)
    if whole is not False:
        return whole
    return None if any(_told(sentence, code) for sentence in _SENTENCE.split(text) if sentence) else False


def _told(text: str, code: str) -> bool | None:
    if len(_LETTER.findall(text)) < LEAST_LETTERS:
        return None
    probabilities = {label: float(value) for label, value in _identifier().rank(text)}
    if sum(probabilities.get(label, 0.0) for label in _VARIETIES.get(code, (code,))) >= CONFIDENT:
        return True
    kin = next((family for family in _KIN if code in family), (code,))
    return False if max(value for label, value in probabilities.items() if label not in kin) >= CONFIDENT else None


@cache
def _identifier() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
