"""The checks of IFEval by name: each takes a text and arguments, and returns whether the instruction is followed; None where that
cannot be told."""

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from filters.answers.languages import is_in

_WORDS = re.compile(r"\w+(?:['\u2019-]\w+)*")
_SENTENCE_END = re.compile(r"[.!?]+(?=[\s\"')\]]|$)")
_BULLET = re.compile(r"^\s*(?:[*\u2022-]|\d+[.)])\s+\S", re.MULTILINE)
_STAR_BULLET = re.compile(r"^\s*[*-]\s+\S", re.MULTILINE)
_HIGHLIGHT = re.compile(r"(?<!\*)\*[^\n*]+\*(?!\*)|\*\*[^\n*]+\*\*")
_PLACEHOLDER = re.compile(r"\[[^\[\]\n]+\]")
_TITLE = re.compile(r"<<[^\n<>]+>>")
_CONSTRAINED = ("My answer is yes.", "My answer is no.", "My answer is maybe.")

Arguments = Mapping[str, Any]


def _related(count: int, arguments: Arguments, key: str, relation: str = "relation") -> bool:
    wanted, number = arguments.get(relation, "at least"), int(arguments[key])
    if wanted not in ("at least", "less than", "at most", "exactly"):
        raise ValueError(f"{relation} is {wanted!r}; at least, at most, less than and exactly are known")
    holds = {"at least": count >= number, "less than": count < number, "at most": count <= number, "exactly": count == number}
    return holds[wanted]


def words(text: str) -> int:
    """Count runs of letters, digits and underscores; `don't` and `well-known` are one word each."""
    return len(_WORDS.findall(text))


def sentences(text: str) -> int:
    """Count ends of sentences, and one more if the text continues after the last."""
    ends = list(_SENTENCE_END.finditer(text))
    return len(ends) + bool(text[ends[-1].end() if ends else 0 :].strip(" \n\t\"')]"))


def _keyword(text: str, keyword: str) -> int:
    return len(re.findall(rf"(?<!\w){re.escape(str(keyword))}(?!\w)", text, re.IGNORECASE))


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
    word = _WORDS.search(blocks[wanted - 1])
    return word is not None and word.group().lower() == str(arguments["first_word"]).lower()


def _two_responses(text: str, _: Arguments) -> bool:
    parts = [part.strip() for part in text.split("******")]
    parts = [part for number, part in enumerate(parts) if part or number not in (0, len(parts) - 1)]
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
    plain = re.sub(r"[*_#]", "", text)  # a heading or bold
    sections = re.findall(rf"{re.escape(str(arguments['section_spliter']).strip())}\s?\d+", plain)
    return len(sections) >= int(arguments["num_sections"])


def _listed(arguments: Arguments, key: str) -> list[str]:
    value = arguments[key]
    if not isinstance(value, list) or not value:
        raise ValueError(f"{key} wants a list of words")
    return [str(word) for word in value]


CHECKS: dict[str, Callable[[str, Arguments], bool | None]] = {
    "length_constraints:number_words": lambda t, a: _related(words(t), a, "num_words"),
    "length_constraints:number_sentences": lambda t, a: _related(sentences(t), a, "num_sentences"),
    "length_constraints:number_paragraphs": lambda t, a: len(_paragraphs(t)) == int(a["num_paragraphs"]),
    "length_constraints:nth_paragraph_first_word": _first_word,
    "keywords:existence": lambda t, a: all(_keyword(t, word) for word in _listed(a, "keywords")),
    "keywords:forbidden_words": lambda t, a: not any(_keyword(t, word) for word in _listed(a, "forbidden_words")),
    "keywords:frequency": lambda t, a: _related(_keyword(t, a["keyword"]), a, "frequency"),
    "keywords:letter_frequency": _letters,
    "language:response_language": lambda t, a: is_in(t, str(a["language"])),
    "detectable_content:number_placeholders": lambda t, a: len(_PLACEHOLDER.findall(t)) >= int(a["num_placeholders"]),
    "detectable_content:postscript": _postscript,
    "detectable_format:number_bullet_lists": lambda t, a: len(_STAR_BULLET.findall(t)) == int(a["num_bullets"]),
    "detectable_format:number_list_items": lambda t, a: _related(len(_BULLET.findall(t)), a, "num_items"),
    "detectable_format:number_highlighted_sections": lambda t, a: len(_HIGHLIGHT.findall(t)) >= int(a["num_highlights"]),
    "detectable_format:multiple_sections": _sections,
    "detectable_format:json_format": lambda t, _: _json(t),
    "detectable_format:title": lambda t, _: _TITLE.search(t) is not None,
    "detectable_format:constrained_response": lambda t, _: any(answer in t for answer in _CONSTRAINED),
    "combination:two_responses": _two_responses,
    "combination:repeat_prompt": lambda t, a: t.strip().lower().startswith(str(a["prompt_to_repeat"]).strip().lower()),
    "startend:end_checker": lambda t, a: t.strip().strip('"').lower().endswith(str(a["end_phrase"]).strip().lower()),
    "startend:start_checker": lambda t, a: t.strip().lower().startswith(str(a["start_phrase"]).strip().lower()),
    "startend:quotation": lambda t, _: len(t.strip()) > 1 and t.strip()[0] == t.strip()[-1] == '"',
    "change_case:capital_word_frequency": _capitals,
    "change_case:english_capital": lambda t, _: t.isupper(),
    "change_case:english_lowercase": lambda t, _: t.islower(),
    "punctuation:no_comma": lambda t, _: "," not in t,
}
"""Check by name. Bad arguments raise KeyError, ValueError or TypeError."""
