"""Which language a text is in, by py3langid (Lui and Baldwin 2012; github.com/adbar/py3langid).

Naive Bayes over byte n-grams, with probabilities that keep their meaning from a sentence to a page. Its model is part of its
package. Deterministic, about 50 us for a paragraph.
"""

import unicodedata
from functools import cache
from typing import Any

READ_CHARS = 4_000
"""Characters at the start of a text that are read."""
LEAST_LETTERS = 20
"""Letters below which no language is told."""
CONFIDENT = 0.6
"""Probability below which no language is told."""
_VARIETIES = {"zh": ("zh", "yue", "wuu"), "ar": ("ar", "ary", "arz"), "no": ("no", "nn"), "sr": ("sr", "bs", "hr")}
"""Labels that count as a language: varieties that share its written form."""


def languages() -> list[str]:
    """The codes (ISO 639) of the languages that are told."""
    return sorted(_identifier().labels)


def is_in(text: str, language: str) -> bool | None:
    """Whether a text is in a language; None where it has fewer than LEAST_LETTERS letters, or neither the language nor another
    has a probability of CONFIDENT. Raises ValueError for a code that is not known."""
    code = language.lower().replace("_", "-").partition("-")[0]
    if code not in _identifier().labels:
        raise ValueError(f"language {language!r}; known are {', '.join(languages())}")
    text = text[:READ_CHARS]
    if sum(unicodedata.category(mark)[0] == "L" for mark in text) < LEAST_LETTERS:
        return None
    probabilities = dict(_identifier().rank(text))
    own = sum(float(probabilities.get(label, 0.0)) for label in _VARIETIES.get(code, (code,)))
    if own >= CONFIDENT:
        return True
    rest = max(float(value) for label, value in probabilities.items() if label not in _VARIETIES.get(code, (code,)))
    return False if rest >= CONFIDENT else None


@cache
def _identifier() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
