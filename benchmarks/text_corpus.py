"""English prose on this machine (Debian documents, Perl's manual, Python packages) and ways to corrupt it.

Sentences are in the order of their file, without repeats over all files. They are split by package, so that a filter that learned
from a package's documents is not tested on its other documents.
"""

import ast
import gzip
import html
import random
import re
import string
import sysconfig
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

FILE_CHARS = 400_000
DOCSTRINGS_OF = 12
"""The docstrings of one Python file in this many are used, because there are more of them than of all other text."""

_NAMES = re.compile(
    r"(README|NEWS|FAQ|TODO|HACKING|copyright|METADATA|LICENSE|CONTRIBUTING|INSTALL|THANKS).*|.*\.(md|rst|pod|html|rst\.txt)(\.gz)?"
)
_TAGS = re.compile(r"(?s)<(?:script|style|pre|code)\b.*?</(?:script|style|pre|code)>|<[^<>]{1,300}>")
_BREAKS = re.compile(r"(?i)</?(?:p|div|li|ul|ol|h[1-6]|td|tr|dd|dt|dl|br|table)\b[^<>]{0,200}>")
_FENCES = re.compile(r"(?ms)^[ \t]*(```|~~~).*?^[ \t]*\1[^\n]*$")
_POD = re.compile(r"[A-Z]<(?:<+ )?([^<>\n]*)(?: >+)?>")
_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z\"'(])")
_BULLET = re.compile(r"^(?:[*+-]|\d{1,2}[.)]|#+)\s+")
_REFERENCE = re.compile(r"\]\([^()\s]*\)")


def sentences(extra: tuple[Path, ...] = ()) -> dict[str, list[tuple[str, list[str]]]]:
    """Return files and their sentences under train, calibrate and test. `extra` are further roots, only for training."""
    split: dict[str, list[tuple[str, list[str]]]] = {"test": [], "calibrate": [], "train": []}
    keys: set[str] = set()
    documents: list[tuple[str, str, str]] = sorted((_part(package), name, text) for package, name, text in _documents())
    order = ["test", "calibrate", "train"]
    for part, name, text in sorted(documents, key=lambda document: (order.index(document[0]), document[1])):
        split[part].append((name, list(_new(_sentences(text, name), keys))))
    for root in extra:
        for name, text in _files(root):
            split["train"].append((name, list(_new(_sentences(text, name), keys))))
    return {part: [(name, kept) for name, kept in files if kept] for part, files in split.items()}


def held_back() -> list[str]:
    """Return the sentences of the Python packages of the test split, which every machine that runs the tests has."""
    keys: set[str] = set()
    documents = ((package, name, text) for package, name, text in _documents((), lambda package: _part(package) == "test"))
    return [sentence for _, name, text in sorted(documents) for sentence in _new(_sentences(text, name), keys)]


def _part(package: str) -> str:
    bucket = zlib.crc32(package.encode()) % 10
    return "test" if bucket < 3 else "calibrate" if bucket < 6 else "train"


def _new(sentences: Iterator[str], keys: set[str]) -> Iterator[str]:
    for sentence in sentences:
        key = re.sub(r"\W+", " ", sentence).casefold()
        if key not in keys:
            keys.add(key)
            yield sentence


def _documents(
    roots: tuple[Path, ...] = (Path("/usr/share/doc"), Path("/usr/share/perl")), wanted: Callable[[str], bool] = lambda _: True
) -> Iterator[tuple[str, str, str]]:
    """Yield package, file and text of all documents under `roots`, and of Python's packages."""
    for root in roots:
        for name, text in _files(root):
            yield Path(name).relative_to(root).parts[0].split("-")[0], name, text
    packages = Path(sysconfig.get_paths()["purelib"])
    for folder in sorted(packages.iterdir()):
        package = re.split(r"[-.]", folder.name)[0].lower()
        if wanted(package):
            for name, text in _files(folder):
                yield package, name, text
        if wanted(folder.name.lower()):
            for path in sorted(folder.rglob("*.py")) if folder.is_dir() else []:
                if zlib.crc32(str(path.relative_to(packages)).encode()) % DOCSTRINGS_OF == 0:
                    yield folder.name.lower(), str(path), _docstrings(path)


def _files(root: Path) -> Iterator[tuple[str, str]]:
    for path in sorted(root.rglob("*")):
        if not _NAMES.fullmatch(path.name) or path.is_symlink() or not path.is_file():
            continue
        raw = path.read_bytes()
        try:
            text = (gzip.decompress(raw) if path.suffix == ".gz" else raw).decode()
        except (ValueError, OSError, EOFError):
            continue  # Not UTF-8, so it may contain mojibake.
        text = text[:FILE_CHARS]
        if ".html" in path.name:
            text = html.unescape(_TAGS.sub("", _BREAKS.sub("\n\n", text)))
        elif path.suffix == ".pod":
            text = re.sub(r"(?m)^=.*$", "", _POD.sub(r"\1", _POD.sub(r"\1", text)))
        yield str(path), text


def _docstrings(path: Path) -> str:
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError, RecursionError):
        return ""
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef)
    return "\n\n".join(ast.get_docstring(node) or "" for node in ast.walk(tree) if isinstance(node, kinds))


def _sentences(text: str, name: str) -> Iterator[str]:
    """Yield the sentences of the paragraphs that are prose: not indented, no table, no list of fields."""
    for paragraph in re.split(r"\n[ \t.]*\n", _FENCES.sub("", text)):
        lines = paragraph.strip("\n").split("\n")
        indents = [len(line) - len(line.lstrip()) for line in lines]
        allowed = 1 if name.endswith("copyright") else 0
        if min(indents) > allowed or any(
            line.lstrip().startswith(("|", "+-", "..", ">>>", "$ ", ":", "@", "<")) for line in lines
        ):
            continue
        joined = _REFERENCE.sub("]", " ".join(_BULLET.sub("", line.strip()) for line in lines))
        for part in _END.split(joined):
            sentence = part.strip()
            words = sentence.split()
            if (
                30 <= len(sentence) <= 400
                and len(words) >= 5
                and sentence[0].isupper()
                and sentence[-1] in ".!?"
                and sum(map(str.isalpha, sentence)) > 0.7 * len(sentence)
                and sum(word.islower() for word in words) > 0.5 * len(words)
            ):
                yield sentence


Splice = Callable[[random.Random, str, str], str]


def spoilt(kind: str, sentence: str, other: str, seed: int) -> str:
    """Return the sentence with a splice of this kind; `other` is a clean sentence of another file."""
    return KINDS[kind](random.Random(f"{kind} {seed}"), sentence, other)


def _gaps(text: str) -> list[int]:
    """Positions at which a word starts, except the first."""
    return [match.start() + 1 for match in re.finditer(r" (?=\w)", text)] or [len(text)]


def _insert(make: Callable[[random.Random], str]) -> Splice:
    def splice(draw: random.Random, text: str, _: str) -> str:
        position = draw.choice(_gaps(text))
        return f"{text[:position]}{make(draw)} {text[position:]}"

    return splice


def _inside(draw: random.Random, text: str) -> int:
    """A position inside a word of at least six letters; the middle of the text if there is none."""
    positions = [draw.randint(match.start() + 2, match.end() - 2) for match in re.finditer(r"[a-z]{6,}", text)]
    return draw.choice(positions or [len(text) // 2])


def _ascii_noise(draw: random.Random) -> str:
    return "".join(draw.choices(string.ascii_letters + string.digits + string.punctuation, k=draw.randint(8, 20)))


def _random_letters(draw: random.Random) -> str:
    return "".join(draw.choices(string.ascii_lowercase, k=draw.randint(6, 14)))


def _case_flip(draw: random.Random, text: str, _: str) -> str:
    position = _inside(draw, text)
    return text[:position] + text[position].upper() + text[position + 1 :]


def _cut_glued(draw: random.Random, text: str, other: str) -> str:
    return text[: _inside(draw, text)] + other[_inside(draw, other) :]


def _sentences_glued(draw: random.Random, text: str, other: str) -> str:
    positions = [match.start() + 1 for match in re.finditer(r"[A-Za-z](?=[,;:]? \w)", text)]
    return text[: draw.choice(positions or [len(text) - 1])] + other


def _stop_glued(_: random.Random, text: str, other: str) -> str:
    return text + other


def _words_glued(draw: random.Random, text: str, _: str) -> str:
    positions = [match.start() for match in re.finditer(r"(?<=[a-z]{2}) (?=[a-z]{2})", text)]
    position = draw.choice(positions or [len(text)])
    return text[:position] + text[position + 1 :]


def _cut_then_word(draw: random.Random, text: str, other: str) -> str:
    return f"{text[: _inside(draw, text)]} {other[draw.choice(_gaps(other)) :]}"


def _boundary(draw: random.Random, text: str, other: str) -> str:
    return text[: draw.choice(_gaps(text))] + other[draw.choice(_gaps(other)) :]


def _salad(draw: random.Random, text: str, other: str) -> str:
    words = [word.strip(".,;:()") for word in (text + " " + other).split()]
    position = draw.choice(_gaps(text))
    return f"{text[:position]}{' '.join(draw.sample(words, min(8, len(words))))} {text[position:]}"


_FOREIGN = ["используется", "для", "可以使用这个", "ですから", "그리고", "المستخدم", "εφαρμογή", "प्रयोग", "เพราะ", "ומשתמש"]
_ACCENTED = [
    "caf\u00e9\u2019s", "na\u00efve", "\u201cquoted\u201d", "it\u2019s", "M\u00fcller", "se\u00f1or", "\u2013 and \u2013",
    "\u00e9l\u00e8ve", "\u00fcber", "the \u201cbest\u201d one",
]  # fmt: skip
_BASE64 = string.ascii_letters + string.digits + "+/"


def _url(draw: random.Random) -> str:
    name = "".join(draw.choices(string.ascii_lowercase, k=9))
    path = "".join(draw.choices(_BASE64[:62], k=10))
    return f"https://www.{name}.{draw.choice(['xyz', 'top', 'info'])}/{path}?aff={draw.randrange(10**6)}"


def _loop(draw: random.Random, text: str, _: str) -> str:
    words = text.rstrip(".!?").split()
    start = draw.randrange(max(1, len(words) - 8))
    phrase = " ".join(words[start : start + draw.randint(2, 8)])
    return " ".join([*words[:start], *[phrase] * 6])


KINDS: dict[str, Splice] = {
    "ascii noise": _insert(_ascii_noise),
    "random letters": _insert(_random_letters),
    "sentences glued": _sentences_glued,
    "glued at a full stop": _stop_glued,
    "case flip": _case_flip,
    "foreign script": _insert(lambda draw: draw.choice(_FOREIGN)),
    "mojibake": _insert(lambda draw: draw.choice(_ACCENTED).encode().decode("cp1252", "replace")),
    "loop x6": _loop,
    "two words glued": _words_glued,
    "cut mid-word, glued": _cut_glued,
    "cut mid-word, then a word": _cut_then_word,
    "base64": _insert(lambda draw: "".join(draw.choices(_BASE64, k=draw.randint(20, 40)))),
    "spam URL": _insert(_url),
    "word salad": _salad,
    "splice between words": _boundary,
}
