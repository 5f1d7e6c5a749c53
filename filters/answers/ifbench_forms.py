"""Checks of IFBench on the form of a text, and of its tasks with one answer, by name (Pyatkin et al. 2025, arXiv 2507.02833); the
code is our own. As in ifbench_words, None says that it cannot be told."""

import csv
import io
import re
import unicodedata
from collections.abc import Sequence
from datetime import date
from itertools import pairwise

from filters.answers.ifbench_words import Arguments, Check
from filters.answers.readings import PUNCTUATION, decided, of_sentences, sentences, words

_EMOJI = re.compile(
    r"[\U0001f000-\U0001faff\u2600-\u27bf\u2b00-\u2bff\u2190-\u21ff\u2300-\u23ff\u25a0-\u25ff\u3030\u303d\u3297\u3299\u20e3]"
    r"[\ufe0f\u200d\U0001f3fb-\U0001f3ff\U000e0020-\U000e007f]*"
)
_OPENING = {")": "(", "]": "[", "}": "{"}
_MINOR = frozenset(
    "a an the and but or nor for so yet as at by in of off on per to up via with from into over upon onto than vs is be it "
    "if".split()
)
"""Words that a title may have in lower case."""
_FENCE = re.compile(r"\s*```\w*\n(.*?)\n?```\s*", re.DOTALL)
_OPTION = re.compile(r"\s*[(\[]?[A-Ea-e][.):\]]\s*\S")
_QUESTION = re.compile(r"^[ \t*#]*Question\b[^\n\w]*\d*[.):;*]*", re.MULTILINE)
_AFRICA = (
    "algeria angola benin botswana burkina burundi cabo cape cameroon central chad comoros congo cote ivory djibouti "
    "democratic egypt equatorial eritrea eswatini ethiopia gabon gambia ghana guinea kenya lesotho liberia libya madagascar "
    "malawi mali mauritania mauritius morocco mozambique namibia niger nigeria republic rwanda sao senegal seychelles "
    "sierra somalia south sudan swaziland tanzania the togo tunisia uganda western zambia zimbabwe"
).split()
"""First words of the names of Africa's countries."""
_CAPITALS = {
    "reykjavik": 64.1, "helsinki": 60.2, "oslo": 59.9, "tallinn": 59.4, "stockholm": 59.3, "riga": 56.9, "moscow": 55.8,
    "copenhagen": 55.7, "vilnius": 54.7, "minsk": 53.9, "dublin": 53.3, "berlin": 52.5, "amsterdam": 52.4, "warsaw": 52.2,
    "london": 51.5, "brussels": 50.85, "kyiv": 50.45, "kiev": 50.45, "prague": 50.1, "luxembourg": 49.6, "luxembourg city": 49.6,
    "paris": 48.9, "vienna": 48.2, "bratislava": 48.15, "budapest": 47.5, "vaduz": 47.1, "chisinau": 47.0, "bern": 46.9,
    "ljubljana": 46.05, "zagreb": 45.8,
}  # fmt: skip
"""Capitals of Europe above 45 degrees, and their latitudes."""
_OTHER_CAPITALS = frozenset(
    "belgrade bucharest sarajevo san marino monaco podgorica sofia pristina skopje tirana rome madrid athens lisbon "
    "valletta ankara nicosia andorra la vella vatican city tbilisi yerevan baku astana".split()
)


def _nested(text: str, _: Arguments) -> bool:
    levels: list[str] = []
    for mark in text:
        if mark in "([{":
            levels.append(mark)
        elif mark in _OPENING:
            if levels and levels[-1] == _OPENING[mark]:
                if len(levels) >= 5:
                    return True
                levels.pop()
            else:
                levels = []
    return False


def _quotes(text: str, _: Arguments) -> bool | None:
    """Quotes within quotes: an apostrophe within a word is none, and what opens and closes stands at the edge of words."""
    plain = text.translate(str.maketrans("\u201c\u201d\u2018\u2019", "\"\"''"))
    levels: list[str] = []
    deepest = 0
    for place, mark in enumerate(plain):
        if mark not in "\"'":
            continue
        before, after = plain[place - 1 : place], plain[place + 1 : place + 2]
        if before.isalnum() and after.isalnum():
            continue
        if levels and levels[-1] == mark and not (before.isspace() or not before):
            deepest = max(deepest, len(levels))
            levels.pop()
        elif not levels or levels[-1] != mark:
            levels.append(mark)
    if deepest >= 3:
        return True
    return False if plain.count('"') < 2 or plain.count("'") < 2 else None


def _options(text: str, arguments: Arguments) -> bool | None:
    given = str(arguments["options"])
    separator = "/" if "/" in given else " or " if " or " in given else ","
    options = [option.strip() for option in given.split(separator) if option.strip()]
    found = text.strip()
    if found in options:
        return True
    bare = [option.strip(PUNCTUATION + " ").lower() for option in options]
    if found.strip(PUNCTUATION + " ").lower() in bare:
        return None if all(len(option) == 1 for option in bare) else True  # `a` where `a)` was asked for
    return False


def _lines(text: str) -> list[str]:
    return [line for line in text.split("\n") if line.strip()]


def _stairs(text: str, _: Arguments) -> bool | None:
    indents = [len(line) - len(line.lstrip()) for line in (line.expandtabs(4) for line in _lines(text))]
    return all(a < b for a, b in pairwise(indents)) if len(indents) > 1 else None


def _emoji(text: str, _: Arguments) -> bool | None:
    if not _EMOJI.search(text):
        return False

    def holds(parts: Sequence[str]) -> bool | None:
        verdicts = []
        for part, following in zip(parts, [*parts[1:], ""], strict=True):
            bare = part.rstrip(PUNCTUATION + " \n")
            ends = any(match.end() == len(bare) for match in _EMOJI.finditer(bare))
            verdicts.append(ends or _EMOJI.match(following.lstrip()) is not None or _EMOJI.fullmatch(bare.strip()) is not None)
        return all(verdicts)

    return of_sentences(text, holds)


def _unquoted(text: str, _: Arguments) -> bool | None:
    plain = "".join(text.replace("\u201c", '"').replace("\u201d", '"').split())
    if plain.count('"') < 2:
        return None
    if '""' in plain or plain.rstrip("".join(mark for mark in PUNCTUATION if mark != '"')).endswith('"'):
        return False
    return True if plain.count('"') % 2 == 0 else None


def _list(text: str, arguments: Arguments) -> bool | None:
    marker = str(arguments["sep"]).strip()
    if text.count(marker) < 2:
        return False
    return True if sum(line.lstrip().startswith(marker) for line in _lines(text)) >= 2 else None


def _thesis(text: str, _: Arguments) -> bool | None:
    found = list(re.finditer(r"<(i|em)>([^<]*\w[^<]*)</\1>", text))
    if not found or not text[found[-1].end() :].strip():
        return False
    parts = [part.strip() for part in re.split(r"\n\s*\n", text) if part.strip()]
    if all(part.startswith(("<i>", "<em>")) for part in parts):
        return True
    return None


def _bullets(text: str) -> list[tuple[str, str]]:
    """The lines of a text with their kind: `*`, `-` or none; bold is no bullet."""
    kinds = ((re.match(r"\s*([*-])(?![*-])\s*\S", line), line) for line in _lines(text))
    return [(match[1] if match else "", line) for match, line in kinds]


def _sub_bullets(text: str, _: Arguments) -> bool | None:
    kinds = [kind for kind, _ in _bullets(text) if kind]
    if "*" not in kinds or "-" not in kinds:
        return False
    return all(after == "-" for kind, after in zip(kinds, [*kinds[1:], ""], strict=True) if kind == "*")


def _some_bullets(text: str, _: Arguments) -> bool | None:
    kinds = _bullets(text)
    first = next((place for place, (kind, _) in enumerate(kinds) if kind == "*"), None)
    if first is None or sum(kind == "*" for kind, _ in kinds) < 2:
        return False
    before = "\n".join(line for _, line in kinds[:first])
    told = decided(sum(part.endswith(".") for part in reading) >= 2 for reading in sentences(before))
    after = [kind for kind, _ in kinds[first:]]
    return told if told is not True or all(kind == "*" for kind in after) else None


def _title_case(text: str, _: Arguments) -> bool | None:
    found = [word for word in words(text)[0] if word[0].isalpha()]
    lower = [word for word in found if word[0].islower()]
    if not found or not lower:
        return bool(found) or None
    return False if found[0][0].islower() or any(word.lower() not in _MINOR for word in lower) else None


def _template(text: str, _: Arguments) -> bool | None:
    places = [text.find(label) for label in ("My Answer:", "My Conclusion:", "Future Outlook:")]
    if -1 in places:
        return False
    return True if places == sorted(places) else None


def _no_whitespace(text: str, _: Arguments) -> bool | None:
    if any(mark.isspace() for mark in text.strip()):
        return False
    return True if text == text.strip() else None


# -- tasks with one answer -------------------------------------------------------------------------------------------------


def _plain(text: str) -> str:
    return unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()


def _multiple_choice(text: str, _: Arguments) -> bool | None:
    starts = list(_QUESTION.finditer(text))
    if not starts or text[: starts[0].start()].strip():
        return False
    ends = [*(match.start() for match in starts[1:]), len(text)]
    lengths = []
    for match, end in zip(starts, ends, strict=True):
        lines = _lines(text[match.end() : end])
        options = [place for place, line in enumerate(lines) if _OPTION.match(line)]
        if len(options) != 5:
            return False
        lengths.append(len(" ".join(line.strip() for line in lines[: options[0]])))
    return len(lengths) == 4 and all(a < b for a, b in pairwise(lengths))


def _africa(text: str, _: Arguments) -> bool | None:
    lines = [line for part in _plain(text).split("\n") if (line := re.sub(r"^\s*\d+[.)]\s*", "", part).strip(PUNCTUATION + " "))]
    start = next((place for place, line in enumerate(lines) if "Zimbabwe" in line), None)
    if start is None or len(lines) - start < 50:
        return False
    countries = lines[start:]
    if sorted(countries, key=str.lower, reverse=True) != countries:
        return False if sorted(countries, reverse=True) != countries else None
    known = sum(re.split(r"[ -]", country.lower())[0] in _AFRICA for country in countries)
    return True if known == len(countries) and len(countries) >= 52 else None


def _words_reversed(text: str, _: Arguments) -> bool | None:
    found = [word.lower() for word in words(text)[0]]
    pairs = set(pairwise(found))
    if ("eagle", "bald") in pairs:
        return True if ("bald", "eagle") not in pairs else None
    return False


def _letters_reversed(text: str, _: Arguments) -> bool:
    return "elgae dlab" in text.lower()


def _capitals(text: str, _: Arguments) -> bool | None:
    found = [part.strip(" .\n").lower() for part in _plain(text).split(",") if part.strip()]
    if any(name in _OTHER_CAPITALS or "(" in name for name in found) or len(set(found)) != len(found):
        return False
    if not all(name in _CAPITALS for name in found):
        return None if len(found) > 20 else False
    wanted = {round(latitude, 2) for name, latitude in _CAPITALS.items() if name not in ("kyiv", "kiev")}
    latitudes = [_CAPITALS[name] for name in found]
    return wanted <= set(latitudes) and all(a > b for a, b in pairwise(latitudes))


def _table(text: str, header: Sequence[str], rows: int, delimiter: str = ",") -> list[list[str]] | None:
    """The rows of a table below its header, quotes and all; None if the text is no such table."""
    fenced = _FENCE.fullmatch(text)
    body = (fenced[1] if fenced else text).strip("\n")
    try:
        table = list(csv.reader(io.StringIO(body.replace('"', '"""')), delimiter=delimiter))
    except csv.Error:
        return None
    table = [[cell.strip(" ") for cell in row] for row in table if row]
    if not table or [cell.strip('"') for cell in table[0]] != list(header) or len(table) != rows + 1:
        return None
    return table if all(len(row) == len(header) for row in table) else None


def _city(text: str, _: Arguments) -> bool:
    return _table(text, ("ID", "Country", "City", "Year", "Count"), 7) is not None


def _special(text: str, _: Arguments) -> bool:
    table = _table(text, ("ProductID", "Category", "Brand", "Price", "Stock"), 14)
    return table is not None and any(re.fullmatch(r'".*[^\w\s"].*"', cell) for row in table[1:] for cell in row)


def _quoted(text: str, _: Arguments) -> bool:
    table = _table(text, ("StudentID", "Subject", "Grade", "Semester", "Score"), 3, "\t")
    return table is not None and all(len(cell) > 1 and cell[0] == cell[-1] == '"' for row in table for cell in row)


def _dates(text: str, _: Arguments) -> bool:
    for part in text.strip().split(","):
        try:
            day = date.fromisoformat(part.strip())
        except ValueError:
            return False
        if not re.fullmatch(r"\d{4}-\d\d-\d\d", part.strip()) or not 1769 <= day.year <= 1821:
            return False
    return True


def _alphabet_story(text: str, _: Arguments) -> bool | None:
    def holds(parts: Sequence[str]) -> bool:
        first = "".join(part.lstrip(PUNCTUATION + " ")[:1].lower() for part in parts)
        return first == "abcdefghijklmnopqrstuvwxyz"

    return of_sentences(text, holds)


FORM_CHECKS: dict[str, Check] = {
    "format:parentheses": _nested,
    "format:quotes": _quotes,
    "format:options": _options,
    "format:newline": lambda t, _: all(len(line.split()) == 1 for line in _lines(t)) if t.strip() else None,
    "format:emoji": _emoji,
    "format:line_indent": _stairs,
    "format:quote_unquote": _unquoted,
    "format:list": _list,
    "format:thesis": _thesis,
    "format:sub-bullets": _sub_bullets,
    "format:no_bullets_bullets": _some_bullets,
    "format:title_case": _title_case,
    "format:output_template": _template,
    "format:no_whitespace": _no_whitespace,
    "custom:multiples": lambda t, _: re.findall(r"\d+", t) == ["14", "21", "28", "35", "42", "49"],
    "custom:mcq_count_length": _multiple_choice,
    "custom:reverse_newline": _africa,
    "custom:word_reverse": _words_reversed,
    "custom:character_reverse": _letters_reversed,
    "custom:sentence_alphabet": _alphabet_story,
    "custom:european_capitals_sort": _capitals,
    "custom:csv_city": _city,
    "custom:csv_special_character": _special,
    "custom:csv_quotes": _quoted,
    "custom:date_format_list": _dates,
}
"""Check by name."""
