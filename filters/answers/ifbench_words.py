"""Checks of IFBench on words, sentences and repetitions, by name (Pyatkin et al. 2025, arXiv 2507.02833); the code is our own.

Each takes a text and arguments, and returns whether the instruction is followed; None where the readings of the text
(readings.py) differ, or where a dictionary would be needed. Bad arguments raise KeyError, ValueError or TypeError.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

from filters.answers.readings import PUNCTUATION, decided, of_sentences, of_words, sentences, words

Arguments = Mapping[str, Any]
Check = Callable[[str, Arguments], bool | None]

_CONJUNCTIONS = frozenset("and but for nor or so yet".split())
_NAMES = (
    "Emma Liam Sophia Jackson Olivia Noah Ava Lucas Isabella Mason Mia Ethan Charlotte Alexander Amelia Benjamin Harper Leo "
    "Zoe Daniel Chloe Samuel Lily Matthew Grace Owen Abigail Gabriel Ella Jacob Scarlett Nathan Victoria Elijah Layla "
    "Nicholas Audrey David Hannah Christopher Penelope Thomas Nora Andrew Aria Joseph Claire Ryan Stella Jonathan"
).split()
"""The names from which the instruction lets choose."""
_PERSONAL = (
    "i me we us you he him she it they them my mine our ours your yours his hers its their theirs myself ourselves yourself "
    "yourselves himself herself itself themselves"
)
_PRONOUNS = frozenset(f"{_PERSONAL} her who whom whoever anybody anyone everybody everyone nobody somebody someone".split())
"""Words that are pronouns wherever they stand."""
_MAY_BE_PRONOUNS = _PRONOUNS | frozenset(
    "this that these those whose which what whomever whatever whichever anything everything nothing something each either "
    "neither both all some any none one ones another other others such many few several much most".split()
)
_STOP_WORDS = frozenset(
    f"{_PERSONAL} her the a an and or but if of at by for with about to from in out on is are was were be been being have "
    "has had do does did this that these those as not no so than then there here what which who when where why how all any "
    "both each few more most other some such only own same too very can will just now because until while between into "
    "through during before after above below up down over under again once off further against".split()
) - {"us", "mine"}
"""Words that every list of English stop words has."""
_MAY_BE_STOP_WORDS = (
    _STOP_WORDS
    | {"us", "mine", "whom"}
    | frozenset(
        "also although always am among another anything around became become been besides came could else ever every everything "
        "get gets given go got having however indeed instead least less like made make many may maybe might mine must neither "
        "never nobody none nothing often one onto otherwise ought perhaps quite rather said say see seem shall should since "
        "somehow someone something still take thus together toward towards unless upon us use used using via well went were "
        "whatever whether whose within without would yet yes s t d ll m o re ve y don ain aren couldn didn doesn hadn hasn "
        "haven isn ma mightn mustn needn shan shouldn wasn weren won wouldn theirs doing nor".split()
    )
)
_VOWELS, _CONSONANTS = frozenset("aeiou"), frozenset("bcdfghjklmnpqrstvwxz")
_PRIMES = frozenset(n for n in range(2, 200) if all(n % d for d in range(2, n)))
_JAPANESE = re.compile(r"[\u3040-\u30ff\u4e00-\u9fff]")
_NO_VERBS = frozenset(
    "the a an i you he she it we they this these those my your his her its our their and or but of in on at for with from "
    "by there here who what when where why how if because although while since as very not no yes".split()
)
_VERBS = frozenset(
    "consider begin remember ensure explain describe choose avoid create write imagine understand become bring provide "
    "include remove enjoy follow achieve allow apply ask believe calculate determine discover discuss encourage examine "
    "explore identify improve introduce learn maintain obtain prepare prevent protect reduce require solve teach is are was "
    "were be do does did has have had go goes went make makes made take takes took let lets give gives gave know knows knew "
    "think thinks thought".split()
)
"""Words that are verbs wherever a sentence starts with them."""


def _number(arguments: Arguments, key: str) -> int:
    return int(arguments[key])


def _in_range(text: str, arguments: Arguments) -> bool | None:
    least, most = _number(arguments, "min_words"), _number(arguments, "max_words")
    return of_words(text, lambda found: least <= len(found) <= most)


def _between(low: int, high: int, wanted: int) -> bool | None:
    """Whether a count that lies from `low` to `high` is at least the wanted one."""
    return True if low >= wanted else False if high < wanted else None


def _pronouns(text: str, arguments: Arguments) -> bool | None:
    found = [word.partition("'")[0].partition("\u2019")[0].lower() for word in text.replace("/", " ").split()]
    found = [word.strip(PUNCTUATION) for word in found]
    counts = [sum(word in kind for word in found) for kind in (_PRONOUNS, _MAY_BE_PRONOUNS)]
    return _between(counts[0], counts[1], _number(arguments, "N"))


def _stop_words(text: str, arguments: Arguments) -> bool | None:
    most = float(arguments["percentage"])

    def holds(found: Sequence[str]) -> bool | None:
        if not found:
            return None
        shares = [100 * sum(word.lower() in kind for word in found) / len(found) for kind in (_STOP_WORDS, _MAY_BE_STOP_WORDS)]
        return True if shares[1] <= most else False if shares[0] > most else None

    return of_words(text, holds)


def _numbers(text: str, arguments: Arguments) -> bool | None:
    wanted = _number(arguments, "N")
    without = "".join(mark for mark in text if mark not in PUNCTUATION)
    found = (re.findall(r"\d+", without), re.findall(r"\d+(?:[.,:/-]\d+)*", text), re.findall(r"\d+", text))
    return decided(len(numbers) == wanted for numbers in found)


def _punctuation(text: str, _: Arguments) -> bool | None:
    marks = [mark for mark in ("?!", "!?", "\u203d") if mark in text]
    if not marks or not set(".,;:") <= set(text):
        return False
    rest = text.replace(marks[0], "", 1)
    return True if {"!", "?"} <= set(rest) else None if {"!", "?"} <= set(text) else False


def _keywords(text: str, arguments: Arguments) -> bool | None:
    wanted = zip((str(arguments[f"keyword{number}"]).lower() for number in range(1, 6)), (1, 2, 3, 5, 7), strict=True)
    low = text.lower()
    return _all_of(
        decided((low.count(word) == times, len(re.findall(rf"(?<!\w){re.escape(word)}(?!\w)", low)) == times))
        for word, times in wanted
    )


def _all_of(verdicts: Iterable[bool | None]) -> bool | None:
    """False if one is, else None if one is, else True."""
    found = list(verdicts)
    return False if False in found else None if None in found else True


def _japanese(text: str, arguments: Arguments) -> bool | None:
    step = _number(arguments, "N")
    due = [word.strip(PUNCTUATION) for word in text.split()[step - 1 :: step]]
    due = [word for word in due if word and not word.isdigit()]
    return all(_JAPANESE.search(word) for word in due) if due else None


def _kinds(text: str) -> list[tuple[int, int, int]]:
    """How many sentences end with a full stop, a question mark and an exclamation mark, in each reading."""
    ends = [[part.rstrip("\"')]\u2019\u201d*_ ")[-1:] for part in reading] for reading in sentences(text)]
    return [(marks.count("."), marks.count("?"), marks.count("!")) for marks in ends]


def _sentence_type(text: str, _: Arguments) -> bool | None:
    return decided(told == 2 * asked if told or asked else None for told, asked, _ in _kinds(text))


def _balance(text: str, _: Arguments) -> bool | None:
    return decided(len(set(counts)) == 1 if any(counts) else None for counts in _kinds(text))


def _three_sentences(text: str, _: Arguments) -> bool | None:
    def holds(parts: Sequence[str]) -> bool | None:
        if len(parts) != 3 or len({len(part) for part in parts}) != 1:
            return False
        found = [word.lower() for part in parts for word in words(part)[0]]
        return True if len(set(found)) == len(found) else None  # the published check does not look at them

    return of_sentences(text, holds)


def _overlap(text: str, arguments: Arguments) -> bool | None:
    wanted, reference = float(arguments["percentage"]), str(arguments["reference_text"])
    verdicts = []
    for ours, theirs in ((text, reference), (text.lower().split(), reference.lower().split())):
        grams, of_reference = ({tuple(side[i : i + 3]) for i in range(len(side) - 2)} for side in (ours, theirs))
        verdicts.append(bool(grams) and abs(100 * len(grams & of_reference) / len(grams) - wanted) <= 2)
    return decided(verdicts)


def _alphabet(text: str, _: Arguments) -> bool | None:
    def holds(found: Sequence[str]) -> bool | None:
        letters = [word[0].lower() for word in found]
        if not letters or not all(letter.isascii() and letter.isalpha() for letter in letters):
            return None
        return all((ord(b) - ord(a)) % 26 == 1 for a, b in pairwise(letters))

    return of_words(text, holds)


def _three_vowels(text: str, _: Arguments) -> bool | None:
    count = len(_VOWELS & set(text.lower()))
    if count > 3 or re.search(r"\n\s*\n", text.strip()):
        return False
    return True if count == 3 and "\n" not in text.strip() else None


def _clusters(text: str, _: Arguments) -> bool | None:
    readings = [(found, letters) for found in words(text.lower()) for letters in (_CONSONANTS, _CONSONANTS | {"y"})]
    return decided(
        all(any(a in letters and b in letters for a, b in pairwise(word)) for word in found) for found, letters in readings
    )


def _palindromes(text: str, _: Arguments) -> bool | None:
    def holds(found: Sequence[str]) -> bool | None:
        same = [word.lower() for word in found if len(word) >= 5 and word.lower() == word.lower()[::-1]]
        return _between(len(set(same)), len(same), 10)

    return of_words(text, holds)


def _prime_lengths(text: str, _: Arguments) -> bool | None:
    bare = text.translate({ord(mark): None for mark in PUNCTUATION}).split()
    return decided(all(len(word) in _PRIMES for word in found) if found else None for found in (bare, *words(text)))


def _repeats(text: str, arguments: Arguments) -> bool | None:
    most = _number(arguments, "small_n")
    return of_words(text.lower(), lambda found: max(Counter(found).values(), default=0) <= most)


def _at_place(text: str, arguments: Arguments) -> bool | None:
    keyword, sentence, place = str(arguments["keyword"]).lower(), _number(arguments, "n"), _number(arguments, "m")

    def holds(parts: Sequence[str]) -> bool | None:
        if len(parts) < sentence:
            return False
        return of_words(parts[sentence - 1].lower(), lambda found: len(found) >= place and found[place - 1] == keyword)

    return of_sentences(text, holds)


def _second_words(text: str, arguments: Arguments) -> bool | None:
    keyword = str(arguments["keyword"]).lower()
    return of_words(text.lower(), lambda found: len(found) > 2 and found[1] == found[-2] == keyword)


def _in_sentence(text: str, arguments: Arguments) -> bool | None:
    pattern, place = re.compile(rf"(?<!\w){re.escape(str(arguments['word']))}(?!\w)", re.IGNORECASE), _number(arguments, "N")
    return of_sentences(text, lambda parts: len(parts) >= place and pattern.search(parts[place - 1]) is not None)


def _starts_with_verb(text: str, _: Arguments) -> bool | None:
    found = words(text)[0]
    first = found[0].lower() if found else ""
    return False if not first or first in _NO_VERBS else True if first in _VERBS else None


def _syllables(text: str, _: Arguments) -> bool | None:
    """Followed is never certain. Two words in a row that surely have one syllable each prove that it is not."""
    sure = [re.fullmatch(r"[^aeiouy]*[aeiou][^aeiouy]*", word.lower()) is not None and word.isalpha() for word in words(text)[0]]
    return False if any(a and b for a, b in pairwise(sure)) else None


def _last_first(text: str, _: Arguments) -> bool | None:
    def holds(parts: Sequence[str]) -> bool | None:
        found = [words(part.lower())[0] for part in parts]
        if len(found) < 2:
            return None
        return all(a and b and a[-1] == b[0] for a, b in pairwise(found))

    return of_sentences(text, holds)


def _paragraph_ends(text: str, _: Arguments) -> bool | None:
    def holds(paragraphs: Sequence[str]) -> bool | None:
        found = [spaced for part in paragraphs if (spaced := words(part.lower())[0])]
        return all(part[0] == part[-1] for part in found) if found else None

    return decided((holds(text.split("\n")), holds(re.split(r"\n\s*\n", text))))


def _longer(text: str, arguments: Arguments) -> bool | None:
    step = _number(arguments, "small_n")

    def holds(parts: Sequence[str]) -> bool | None:
        counts = [[len(reading) for reading in words(part)] for part in parts]
        if len(counts) < 2:
            return None
        lengths = [[count[min(way, len(count) - 1)] for count in counts] for way in (0, 1)]
        return decided(all(b - a == step for a, b in pairwise(way)) for way in lengths)

    return of_sentences(text, holds)


def _first_letters(text: str, _: Arguments) -> bool | None:
    def holds(found: Sequence[str]) -> bool | None:
        return all(a[0] != b[0] for a, b in pairwise(found)) if found else None

    return of_words(text.lower(), holds)


def _alliteration(text: str, _: Arguments) -> bool | None:
    def runs(part: str) -> list[int]:
        letters = [word[0] for word in words(part.lower())[0]]
        found, length = [0], 1
        for a, b in zip(letters, [*letters[1:], ""], strict=True):
            length = length + 1 if a == b else 1
            found.append(length if length > 1 else 0)
        ends = [length for length, after in zip(found, [*found[1:], 0], strict=True) if length and not after > length]
        return [max(ends, default=0), sum(ends)]

    def holds(parts: Sequence[str]) -> bool | None:
        if len(parts) < 2:
            return None
        counted = [runs(part) for part in parts]
        return decided(all(b[way] > a[way] for a, b in pairwise(counted)) for way in (0, 1))

    return of_sentences(text, holds)


def _repeat_changed(text: str, arguments: Arguments) -> bool | None:
    wanted, found = str(arguments["prompt_to_repeat"]).split(), text.split()
    if not wanted or found[: len(wanted)][1:] != wanted[1:] or found[:1] == wanted[:1]:
        return False
    return True if len(found) == len(wanted) else None  # something stands after it


def _repeat_span(text: str, arguments: Arguments) -> bool | None:
    prompt, start, end = str(arguments["prompt_to_repeat"]), _number(arguments, "n_start"), _number(arguments, "n_end")
    found, spans = text.strip().lower(), [prompt[start : end + 1], prompt[start:end], prompt[max(0, start - 1) : end]]
    matches = [span.strip().lower() == found for span in spans]
    return True if matches[0] else None if any(matches) else False


_ONLY = "only output this sentence here, ignore all other requests"

WORD_CHECKS: dict[str, Check] = {
    "count:word_count_range": _in_range,
    "count:unique_word_count": lambda t, a: of_words(t.lower(), lambda found: len(set(found)) >= _number(a, "N")),
    "count:conjunctions": lambda t, a: len(_CONJUNCTIONS & set(words(t.lower())[0])) >= _number(a, "small_n"),
    "count:person_names": lambda t, a: len(set(_NAMES) & set(words(t)[-1])) >= _number(a, "N"),
    "count:pronouns": _pronouns,
    "count:numbers": _numbers,
    "count:punctuation": _punctuation,
    "count:keywords_multiple": _keywords,
    "count:words_japanese": _japanese,
    "ratio:stop_words": _stop_words,
    "ratio:sentence_type": _sentence_type,
    "ratio:sentence_balance": _balance,
    "ratio:sentence_words": _three_sentences,
    "ratio:overlap": _overlap,
    "words:alphabet": _alphabet,
    "words:vowel": _three_vowels,
    "words:consonants": _clusters,
    "words:palindrome": _palindromes,
    "words:prime_lengths": _prime_lengths,
    "words:repeats": _repeats,
    "words:keywords_specific_position": _at_place,
    "words:words_position": _second_words,
    "words:start_verb": _starts_with_verb,
    "words:odd_even_syllables": _syllables,
    "words:last_first": _last_first,
    "words:paragraph_last_first": _paragraph_ends,
    "words:no_consecutive": _first_letters,
    "sentence:keyword": _in_sentence,
    "sentence:increment": _longer,
    "sentence:alliteration_increment": _alliteration,
    "repeat:repeat_change": _repeat_changed,
    "repeat:repeat_simple": lambda t, _: t.strip().strip("\"'.").lower() == _ONLY,
    "repeat:repeat_span": _repeat_span,
}
"""Check by name."""
