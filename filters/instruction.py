"""Verifiable instructions, checked: so many words, no commas, a title in <<angle brackets>>.

The checks and their names are those of IFEval (Zhou et al. 2023, arXiv 2311.07911), own code. They come from the recipe
(`checks`) or from the prompt's reference: `{"instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]}`, as IFEval's own
file has them. An unknown one is refused, never passed. Nothing is random and nothing is downloaded: the same text has the same
verdict everywhere.
"""

import json
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field

from filters.base import Filter, FilterError, Role, Scope
from schemas.sample import Verdict

_WORDS = re.compile(r"\w+(?:['\u2019-]\w+)*")
_SENTENCE_END = re.compile(r"[.!?]+(?=[\s\"')\]]|$)")
_BULLET = re.compile(r"^\s*(?:[*\u2022-]|\d+[.)])\s+\S", re.MULTILINE)
_STAR_BULLET = re.compile(r"^\s*[*-]\s+\S", re.MULTILINE)
_HIGHLIGHT = re.compile(r"(?<!\*)\*[^\n*]+\*(?!\*)|\*\*[^\n*]+\*\*")
_PLACEHOLDER = re.compile(r"\[[^\[\]\n]+\]")
_TITLE = re.compile(r"<<[^\n<>]+>>")
SCRIPTS = {
    "ar": "ARABIC", "bg": "CYRILLIC", "bn": "BENGALI", "el": "GREEK", "fa": "ARABIC", "gu": "GUJARATI", "he": "HEBREW",
    "hi": "DEVANAGARI", "ja": "CJK HIRAGANA KATAKANA", "kn": "KANNADA", "ko": "HANGUL", "mr": "DEVANAGARI",
    "ne": "DEVANAGARI", "pa": "GURMUKHI", "ru": "CYRILLIC", "ta": "TAMIL", "te": "TELUGU", "th": "THAI", "uk": "CYRILLIC",
    "ur": "ARABIC", "zh": "CJK",
    "de": "LATIN", "en": "LATIN", "es": "LATIN", "fi": "LATIN", "fr": "LATIN", "it": "LATIN", "pl": "LATIN", "pt": "LATIN",
    "sv": "LATIN", "sw": "LATIN", "vi": "LATIN",
}  # fmt: skip
"""Script by language. Languages that share a script are not told apart."""

Arguments = Mapping[str, Any]


class Config(BaseModel):
    """Parameters of `instruction`."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    checks: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Checks that every completion must pass: name to arguments, such as {"length_constraints:number_words": {"relation": "at
    least", "num_words": 50}}. None: those of the prompt's reference."""


def build(config: Config) -> Filter:
    """Drop `instruction_not_followed`, with the names that failed; undecided with `no_reference`, `bad_reference`. The score is
    the share of instructions followed."""
    fixed = _read(list(config.checks), list(config.checks.values())) if config.checks else None
    if isinstance(fixed, str):
        raise FilterError(f"instruction: parameters.checks: {fixed}")

    @lru_cache(maxsize=65_536)  # the samples of a prompt share their reference
    def wanted(reference: str) -> list[tuple[str, Arguments]] | str:
        value = json.loads(reference)
        if not isinstance(value, dict) or not isinstance(value.get("instruction_id_list"), list):
            return "wanted an object with instruction_id_list and kwargs"
        names = value["instruction_id_list"]
        return _read(names, value.get("kwargs") or [{}] * len(names))

    def verdict(completion: str, reference: str | None) -> Verdict:
        if fixed is None and (reference is None or reference == "null"):
            return Verdict.undecided("no_reference")
        checks = wanted(reference or "") if fixed is None else fixed
        if isinstance(checks, str):
            return Verdict.undecided("bad_reference", why=checks)
        failed = [name for name, arguments in checks if not CHECKS[name](completion, arguments)]
        score = 1 - len(failed) / len(checks)
        return Verdict.drop("instruction_not_followed", score, failed=failed) if failed else Verdict.keep(score)

    def judge(table: pa.Table) -> list[Verdict]:
        references: Sequence[str | None] = [None] * table.num_rows if fixed is not None else table["reference"].to_pylist()
        return [verdict(c, r) for c, r in zip(table["completion"].to_pylist(), references, strict=True)]

    # No text can be made of instructions; that they can be read is seen with the first sample.
    columns = ("completion",) if fixed is not None else ("completion", "reference")
    parameters = config.model_dump(mode="json")
    return Filter("instruction", "1", Scope.SAMPLE, Role.VERIFIER, judge, columns, parameters, _nothing, _nothing, cost_us=30.0)


def _nothing(_: Any) -> None:
    return None


def _read(names: Sequence[Any], arguments: Sequence[Any]) -> list[tuple[str, Arguments]] | str:
    """The checks by name with their arguments, or what is wrong with them."""
    if not names or len(names) != len(arguments):
        return f"{len(names)} instructions and arguments of {len(arguments)}; one each is wanted"
    found: list[tuple[str, Arguments]] = []
    for name, given in zip(names, arguments, strict=True):
        if name not in CHECKS:
            return f"no instruction is called {name!r}; known are {', '.join(CHECKS)}"
        kept = {key: value for key, value in (given or {}).items() if value is not None}
        try:
            CHECKS[name]("A text to try it on.", kept)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            return f"{name}: {type(error).__name__}: {error}; its arguments are {json.dumps(kept)[:120]}"
        found.append((name, kept))
    return found


# -- what is counted ----------------------------------------------------------------------------------------------------------


def _related(count: int, arguments: Arguments, key: str, relation: str = "relation") -> bool:
    said, number = arguments.get(relation, "at least"), int(arguments[key])
    if said not in ("at least", "less than", "at most", "exactly"):
        raise ValueError(f"{relation} is {said!r}; at least, at most, less than and exactly are known")
    return {"at least": count >= number, "less than": count < number, "at most": count <= number, "exactly": count == number}[
        said
    ]


def words(text: str) -> int:
    """Runs of letters, digits and underscores; `don't` and `well-known` are one each."""
    return len(_WORDS.findall(text))


def sentences(text: str) -> int:
    """Ends of sentences, and one more where the text goes on after the last."""
    ends = list(_SENTENCE_END.finditer(text))
    return len(ends) + bool(text[ends[-1].end() if ends else 0 :].strip(" \n\t\"')]"))


def _keyword(text: str, keyword: str) -> int:
    return len(re.findall(rf"(?<!\w){re.escape(str(keyword))}(?!\w)", text, re.IGNORECASE))


def _script(text: str, language: str) -> bool:
    if language not in SCRIPTS:
        raise ValueError(f"language {language!r}; known are {', '.join(SCRIPTS)}")
    letters = [unicodedata.name(mark, "") for mark in text[:4000] if mark.isalpha()]
    named = tuple(SCRIPTS[language].split())
    return bool(letters) and sum(name.startswith(named) for name in letters) >= 0.8 * len(letters)


def _json(text: str) -> bool:
    text = re.sub(r"^```(?:json)?\s*|\s*```$", "", text.strip(), flags=re.IGNORECASE)
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _paragraphs(text: str) -> list[str]:
    return [part for part in re.split(r"\n\s*\*\*\*\s*\n", text) if part.strip()]


def _blocks(text: str) -> list[str]:
    return [part for part in re.split(r"\n\s*\n", text) if part.strip()]


def _first_word(text: str, arguments: Arguments) -> bool:
    blocks, wanted = _blocks(text), int(arguments["nth_paragraph"])
    if wanted < 1:
        raise ValueError("nth_paragraph counts from 1")
    if len(blocks) != int(arguments["num_paragraphs"]) or wanted > len(blocks):
        return False
    found = _WORDS.search(blocks[wanted - 1])
    return found is not None and found.group().lower() == str(arguments["first_word"]).lower()


def _two_responses(text: str, _: Arguments) -> bool:
    parts = [part.strip() for part in text.split("******")]
    parts = [part for at, part in enumerate(parts) if part or at not in (0, len(parts) - 1)]
    return len(parts) == 2 and all(parts) and parts[0] != parts[1]


def _postscript(text: str, arguments: Arguments) -> bool:
    marker = str(arguments.get("postscript_marker", "P.S."))
    pattern = {"P.P.S": r"p\.\s?p\.\s?s", "P.S.": r"p\.\s?s\."}.get(marker, re.escape(marker.lower()))
    return re.search(rf"^\s*{pattern}.*$", text.lower(), re.MULTILINE) is not None


def _capitals(text: str, arguments: Arguments) -> bool:
    return _related(sum(word.isupper() for word in _WORDS.findall(text)), arguments, "capital_frequency", "capital_relation")


def _letters(text: str, arguments: Arguments) -> bool:
    letter = str(arguments["letter"])
    if len(letter) != 1:
        raise ValueError(f"letter is {letter!r}, one is wanted")
    return _related(text.lower().count(letter.lower()), arguments, "let_frequency", "let_relation")


def _sections(text: str, arguments: Arguments) -> bool:
    found = re.findall(rf"^\s*{re.escape(str(arguments['section_spliter']))}\s+\d+", text, re.MULTILINE)
    return len(found) >= int(arguments["num_sections"])


def _listed(arguments: Arguments, key: str) -> list[str]:
    value = arguments[key]
    if not isinstance(value, list) or not value:
        raise ValueError(f"{key} wants a list of words")
    return [str(one) for one in value]


CHECKS: dict[str, Callable[[str, Arguments], bool]] = {
    "length_constraints:number_words": lambda t, a: _related(words(t), a, "num_words"),
    "length_constraints:number_sentences": lambda t, a: _related(sentences(t), a, "num_sentences"),
    "length_constraints:number_paragraphs": lambda t, a: len(_paragraphs(t)) == int(a["num_paragraphs"]),
    "length_constraints:nth_paragraph_first_word": _first_word,
    "keywords:existence": lambda t, a: all(_keyword(t, one) for one in _listed(a, "keywords")),
    "keywords:forbidden_words": lambda t, a: not any(_keyword(t, one) for one in _listed(a, "forbidden_words")),
    "keywords:frequency": lambda t, a: _related(_keyword(t, a["keyword"]), a, "frequency"),
    "keywords:letter_frequency": _letters,
    "language:response_language": lambda t, a: _script(t, a["language"]),
    "detectable_content:number_placeholders": lambda t, a: len(_PLACEHOLDER.findall(t)) >= int(a["num_placeholders"]),
    "detectable_content:postscript": _postscript,
    "detectable_format:number_bullet_lists": lambda t, a: len(_STAR_BULLET.findall(t)) == int(a["num_bullets"]),
    "detectable_format:number_list_items": lambda t, a: _related(len(_BULLET.findall(t)), a, "num_items"),
    "detectable_format:number_highlighted_sections": lambda t, a: len(_HIGHLIGHT.findall(t)) >= int(a["num_highlights"]),
    "detectable_format:multiple_sections": _sections,
    "detectable_format:json_format": lambda t, _: _json(t),
    "detectable_format:title": lambda t, _: _TITLE.search(t) is not None,
    "combination:two_responses": _two_responses,
    "startend:end_checker": lambda t, a: t.strip().strip('"').lower().endswith(str(a["end_phrase"]).strip().lower()),
    "startend:start_checker": lambda t, a: t.strip().lower().startswith(str(a["start_phrase"]).strip().lower()),
    "startend:quotation": lambda t, _: len(t.strip()) > 1 and t.strip()[0] == t.strip()[-1] == '"',
    "change_case:capital_word_frequency": _capitals,
    "change_case:english_capital": lambda t, _: t.isupper(),
    "change_case:english_lowercase": lambda t, _: t.islower(),
    "punctuation:no_comma": lambda t, _: "," not in t,
}
"""Check by name: completion and arguments to whether it is followed. Bad arguments raise KeyError, ValueError or TypeError."""
