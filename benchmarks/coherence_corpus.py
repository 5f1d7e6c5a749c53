"""Clean paragraphs of six kinds, and six ways to corrupt one as sampling at temperature 1 does.

documentation: paragraphs of the docstrings of installed Python packages. markdown: their READMEs as they come, with links, lists
and code. maths: questions of reasoning_gym, docstrings with LaTeX, and solutions that sympy worked out, in LaTeX. dialogue:
speeches in J. Verne's In the Year 2889 (which reasoning_gym holds) and made dialogues. poems: stanzas made from patterns of
verse, with a capital at each line. non-native: documentation with the errors that learners make, put in by rule.

Packages and seeds of the parts `calibrate` and `test` differ. What is made from patterns (most dialogues, poems, the solutions)
varies less than what people write; the shares for those kinds are flattering.
"""

import importlib.metadata
import random
import re
import string
import sysconfig
from collections.abc import Callable, Iterator
from functools import cache
from importlib.resources import files
from pathlib import Path

import reasoning_gym
import sympy
import text_corpus

KINDS = {"documentation": 600, "markdown": 450, "maths": 400, "dialogue": 250, "poems": 50, "non-native": 250}
"""How many paragraphs of each kind a part has: 2,000 in all."""
SHORTEST, LONGEST = 100, 700
"""Characters of a paragraph."""
PROSE = ("documentation", "markdown", "dialogue", "poems", "non-native")
"""Kinds that are corrupted: maths has few words to cut."""

_FAMILIES = (
    "chain_sum basic_arithmetic gcd lcm fraction_simplification simple_equations polynomial_equations calendar_arithmetic "
    "time_intervals leg_counting prime_factorization number_sequence complex_arithmetic power_function "
    "bitwise_arithmetic decimal_chain_sum products simple_integration count_primes gsm_symbolic"
).split()


@cache
def paragraphs(part: str) -> dict[str, tuple[str, ...]]:
    """The paragraphs of the part `calibrate` or `test` by kind; the same each time on the same packages."""
    prose = _docstrings(part)
    draw = random.Random(f"paragraphs {part}")
    draw.shuffle(prose)
    count = KINDS["documentation"]
    learners = [_learner(random.Random(f"learner {text}"), text) for text in prose[count : count + KINDS["non-native"]]]
    pools = {
        "documentation": prose[:count],
        "markdown": draw.sample(readmes := _readmes(part), min(len(readmes), KINDS["markdown"])),
        "maths": _maths(part, draw),
        "dialogue": _dialogues(part, draw),
        "poems": [_stanza(draw) for _ in range(KINDS["poems"])],
        "non-native": learners,
    }
    return {kind: tuple(text for text in pools[kind][: KINDS[kind]]) for kind in KINDS}


def _of(part: str, package: str) -> bool:
    return text_corpus._part(package) == part


def _usable(text: str) -> bool:
    words = text.split()
    return SHORTEST <= len(text) <= LONGEST and len(words) >= 15 and sum(map(str.isascii, text)) > 0.97 * len(text)


def _docstrings(part: str) -> list[str]:
    """Paragraphs of prose in the order of their files, without repeats."""
    prose = dict[str, None]()
    documents = text_corpus._documents((), lambda package: _of(part, package))
    for _, _, text in sorted(document for document in documents if document[1].endswith(".py")):
        for block in re.split(r"\n[ \t]*\n", text):
            lines = block.strip("\n").split("\n")
            if any(
                line.lstrip().startswith(("|", "+-", "..", ">>>", "$ ", ":param", "@", "<", "...", "- ", "*")) for line in lines
            ):
                continue
            joined = " ".join(line.strip() for line in lines)
            has_formula = "$" in joined or ":math:" in joined
            if not _usable(joined) or joined[-1] not in ".!?" or not joined[0].isupper() or has_formula:
                continue
            if sum(word.isalpha() for word in re.split(r"[\s,.;:()]+", joined)) > 0.8 * len(joined.split()):
                prose[joined] = None
    return list(prose)


def _readmes(part: str) -> list[str]:
    """READMEs in Markdown, as the metadata of packages hold them, cut at blank lines outside code into pieces."""
    pieces = dict[str, None]()
    for package in sorted(importlib.metadata.distributions(), key=lambda found: found.name.lower()):
        is_markdown = "markdown" in str(package.metadata.json.get("description_content_type", ""))
        if not is_markdown or not _of(part, re.split(r"[-.]", package.name.replace("-", "_"))[0].lower()):
            continue
        _, _, text = (package.read_text("METADATA") or "").partition("\n\n")
        piece = ""
        for block in [*_blocks(text), ""]:
            if piece and (not block or len(piece) + len(block) > 400):
                if _usable(piece):
                    pieces[piece] = None
                piece = ""
            piece = f"{piece}\n\n{block}" if piece else block
    return list(pieces)


def _blocks(text: str) -> list[str]:
    """What lies between blank lines; fenced code is one block."""
    parts = re.split(r"(?ms)^([ \t]*```.*?^[ \t]*```[^\n]*$)", text)
    return [
        block.strip("\n")
        for number, piece in enumerate(parts)
        for block in ([piece] if number % 2 else re.split(r"\n[ \t]*\n", piece))
        if block.strip()
    ]


def _formulas(part: str) -> list[str]:
    """Paragraphs with LaTeX of the docstrings of numpy, scipy and torch for `calibrate`, of sympy and mpmath for `test`."""
    home, found = Path(sysconfig.get_paths()["purelib"]), dict[str, None]()
    for package in ("sympy", "mpmath") if part == "test" else ("numpy", "scipy", "torch"):
        for path in sorted((home / package).rglob("*.py")):
            source = path.read_text("utf-8", "replace")
            if ":math:" not in source and ".. math" not in source and "tests" not in path.parts:
                continue
            for paragraph in re.split(r"\n[ \t]*\n(?!\s*\.\. math)(?![ \t]+\\)", text_corpus._docstrings(path)):
                text = re.sub(r":math:`([^`]*)`", r"$\1$", paragraph.strip("\n"))
                if _usable(text) and ("$" in text or ".. math" in text) and ">>>" not in text:
                    found[text] = None
    return list(found)


def _maths(part: str, draw: random.Random) -> list[str]:
    seed = 10_000 if part == "test" else 50_000
    formulas = _formulas(part)
    texts = draw.sample(formulas, min(len(formulas), 160))
    for family in _FAMILIES:
        entries = reasoning_gym.create_dataset(family, seed=seed, size=8)
        texts += [f"{entry['question']}\n\nThe answer is {entry['answer']}." for entry in entries]
    texts = [text for text in texts if SHORTEST <= len(text) <= LONGEST]
    while len(texts) < KINDS["maths"]:
        texts.append(_solution(draw))
    draw.shuffle(texts)
    return texts


def _solution(draw: random.Random) -> str:
    """A quadratic equation, a derivative or a sum, solved in LaTeX."""
    x = sympy.Symbol("x")
    a, b, c = (draw.choice([-1, 1]) * draw.randint(1, 12) for _ in range(3))
    form = draw.randrange(3)
    if form == 0:
        square = sympy.expand((x - a) * (x - b))
        return (
            f"To solve $${sympy.latex(square)} = 0$$ we look for two numbers whose product is ${a * b}$ and whose sum "
            f"is ${a + b}$. These are ${a}$ and ${b}$, "
            f"so $$({sympy.latex(x - a)})({sympy.latex(x - b)}) = 0,$$ and the solutions are "
            f"$x = {a}$ and $x = {b}$. Hence \\boxed{{{max(a, b)}}} is the larger one."
        )
    if form == 1:
        function = a * x**3 * draw.choice([sympy.sin(b * x), sympy.exp(b * x), sympy.log(x), sympy.cos(x)]) + c
        slope = sympy.latex(sympy.diff(function, x))
        return (
            f"Let $f(x) = {sympy.latex(function)}$. By the product rule the derivative of $f$ is \\[ f'(x) = {slope}. \\] "
            f"Since the constant ${c}$ vanishes, only the first term contributes, and we are done."
        )
    n = sympy.Symbol("n")
    total = sympy.factor(sympy.summation(abs(a) * n**2 + b * n, (n, 1, x)))
    return (
        f"We compute the sum $\\sum_{{n=1}}^{{x}} ({sympy.latex(abs(a) * n**2 + b * n)})$ term by term. With the known "
        f"formulas for $\\sum n$ and $\\sum n^2$ we get $${sympy.latex(total)}.$$ "
        f"For $x = {abs(c)}$ this equals ${total.subs(x, abs(c))}$."
    )


_PEOPLE = "Anna Ben Chloe David Elena Frank Grace Hassan Ines Jonas Kofi Laura Mei Nikhil Olga Peter".split()
_OPENINGS = (
    "Did you manage to {do}?", "Hi {other}, have you got a minute? I wanted to ask how to {do}.",
    "I thought we were going to {do} today.",
    "Why didn't you {do} when I asked you?", "Can you help me {do}?", "Let's {do} before it gets dark, shall we?",
)  # fmt: skip
_ANSWERS = (
    "Not yet. I had to {also} first, and that took {time}.",
    "Sure, but I need to {also} first. Give me {time}.",
    "I wish I could, but I promised {third} to {also}.",
    "Well, I tried for {time}, and then {third} called and asked me to {also}.",
    "Oh no, I completely forgot! I was too busy trying to {also}.", "Honestly? I'd rather {also}.",
)  # fmt: skip
_REPLIES = (
    "That's all right. We can do it {when}.", "Again? You said the same thing last week.",
    "Fine, but don't be late, {third} is waiting.",
    "Ha, that sounds like you. See you {when}, then.", "Hmm, I'm not sure that's a good idea. What does {third} think?",
    "No problem, take your time. I'll be here {when} anyway.",
)  # fmt: skip
_CLOSINGS = (
    "Thanks, I owe you one.", "Okay, deal!", "You're right, I'm sorry.", "Let me check my calendar and get back to you.",
    "Great. I'll bring some coffee.", "If you say so...", "Perfect, talk to you {when}.",
)  # fmt: skip
_TASKS = (
    "fix the printer", "book the tickets", "water the plants", "call the landlord", "finish the report", "pick up the kids",
    "repair the bicycle", "paint the fence", "return the library books", "find a new flat", "cook dinner for everyone",
    "update the website", "walk the dog", "write to your aunt", "clean the garage", "visit the dentist", "feed the cat",
    "order the spare parts", "practise the violin", "wash the car",
)  # fmt: skip
_TIMES = ("ten minutes", "an hour", "the whole morning", "two days", "half an hour", "longer than I expected")
_WHENS = ("tomorrow", "after lunch", "on Friday", "next week", "tonight", "at the weekend")


def _dialogues(part: str, draw: random.Random) -> list[str]:
    """Verne's paragraphs with speech, then made dialogues of four lines."""
    story = files("reasoning_gym").joinpath("data", "in_the_year_2889.txt").read_text("utf-8")
    spoken = [" ".join(block.split()) for block in re.split(r"\n\s*\n", story) if '"' in block or "\u201c" in block]
    texts = [text for text in spoken if SHORTEST <= len(text) <= LONGEST][part == "test" :: 2]
    seen = set(texts)
    while len(texts) < KINDS["dialogue"]:
        one, other, third = draw.sample(_PEOPLE, 3)
        do, also = draw.sample(_TASKS, 2)
        lines = [draw.choice(turn) for turn in (_OPENINGS, _ANSWERS, _REPLIES, _CLOSINGS)]
        values = {"other": other, "third": third, "do": do, "also": also}
        filled = [line.format(**values, time=draw.choice(_TIMES), when=draw.choice(_WHENS)) for line in lines]
        form = draw.randrange(2)
        if form:
            text = "\n".join(f"{name}: {line}" for name, line in zip((one, other) * 2, filled, strict=True))
        else:
            text = (
                "\n\n".join(f'"{line}"' for line in filled[:1])
                + f" {one} asked. "
                + " ".join(f'"{line}" said {name}.' for name, line in zip((other, one, other), filled[1:], strict=True))
            )
        if text not in seen:
            seen.add(text)
            texts.append(text)
    return texts


_SLIPS: tuple[tuple[str, str], ...] = (
    (r"\b([Tt])he (?=[a-z])", ""), (r"\b[Aa]n? (?=[a-z])", ""), (r"\bis (?=[a-z])", "are "), (r"\bare (?=[a-z])", "is "),
    (r"\bhas\b", "have"), (r"\bhave\b", "has"), (r"\binformation\b", "informations"), (r"\bdepends? on\b", "depend of"),
    (r"\binto\b", "in"), (r"\bin the\b", "on the"), (r"\bfor\b", "since"), (r"\ballows? you to\b", "allow to"),
    (r"\bmust\b", "must to"), (r"\bcan\b", "can to"), (r"\bwill be\b", "will"), (r"\bdoes not\b", "don't"),
    (r"\bmuch\b", "many"), (r"\bmany\b", "much"), (r"\b(\w+[^s\W])s (?=the\b)", r"\1 "), (r"\bmore (\w+) than\b", r"more \1 as"),
    (r"\bwhich\b", "what"), (r"\busing\b", "with use of"), (r"\bcalled\b", "call"), (r"\bused\b", "use"),
)  # fmt: skip


_VERSES = (
    ("The {a} {n} is {v} by the {m},", "And no one {w} where the {o} {x};"),
    ("O {a} {n}, who {v} thee alone", "When all the {o} have {w} and gone?"),
    ("I heard the {n} that {x} at night", "Beside the {m}, so {a} and white,"),
    ("And still the {a} {o} {x} low", "Where once we {w} the {n} to grow."),
    ("Come back, come back, my {a} {n},", "The {o} {x} beneath the {m};"),
    ("What {w} the {m}, what {w} the sea,", "That {v} in the {a} {n} for me?"),
)
_OF_VERSES = {
    "a": "silent weary golden pale winter broken gentle lonely hollow silver".split(),
    "n": "heart lantern sparrow garden river shepherd window harvest candle stranger".split(),
    "m": "moon mill shore meadow gate hill chapel well tower orchard".split(),
    "o": "stars shadows children bells swallows waters roses embers sails voices".split(),
    "v": "waiting sleeping burning hidden singing wandering weeping shining".split(),
    "w": "taught knew left sought lost called loved told".split(),
    "x": "fall sing fade rise sleep turn wander gleam".split(),
}
"""Words of the patterns by the letter that stands for them."""


def _stanza(draw: random.Random) -> str:
    """Two pairs of lines of verse."""
    lines = [line for pair in draw.sample(_VERSES, 2) for line in pair]
    return "\n".join(line.format(**{kind: draw.choice(words) for kind, words in _OF_VERSES.items()}) for line in lines)


def _learner(draw: random.Random, text: str) -> str:
    """Put in three to seven errors, each of another kind where the text allows."""
    wanted = draw.randint(3, 7)
    for pattern, slip in draw.sample(_SLIPS, len(_SLIPS)):
        places = list(re.finditer(pattern, text))
        if places and wanted:
            place = draw.choice(places)
            text = text[: place.start()] + place.expand(slip) + text[place.end() :]
            wanted -= 1
    return text[:1].upper() + text[1:]


Corruption = Callable[[random.Random, str, str], str]


def corrupted(kind: str, text: str, other: str, seed: int) -> str | None:
    """The paragraph with a corruption of this kind; `other` is another paragraph. None where it has no place for it."""
    return CORRUPTIONS[kind](random.Random(f"{kind} {seed}"), text, other) if len(_gaps(text)) > 6 else None


def _gaps(text: str) -> list[int]:
    """Where a word in small letters follows another word."""
    return [place.start() for place in re.finditer(r"(?<=[a-z,]) (?=[a-z]{2})", text)]


def _words(text: str, least: int) -> list[tuple[int, int]]:
    """Words in small letters between two others, of at least so many letters."""
    return [place.span(1) for place in re.finditer(rf"(?<=[a-z,] )([a-z]{{{least},}})(?= [a-z])", text)]


def _noise(draw: random.Random, text: str, _: str) -> str:
    place = draw.choice(_gaps(text))
    signs = string.ascii_letters + string.digits + string.punctuation
    return f"{text[:place]} {''.join(draw.choices(signs, k=draw.randint(8, 20)))}{text[place:]}"


def _glued(draw: random.Random, text: str, other: str) -> str:
    """A sentence breaks off after a word, and another starts without a space: `for their ownYou're free`."""
    starts = [place.start() for place in re.finditer(r"(?<![^\s])[A-Z][a-z]+(?:'[a-z]+)? [a-z]", other)]
    begin = draw.choice(starts) if starts else 0
    opening = other[begin:] if starts else other[0].upper() + other[1:]
    return text[: draw.choice(_gaps(text))] + opening


def _flipped(draw: random.Random, text: str, _: str) -> str | None:
    """One letter inside a word is a capital: `generatiOn`."""
    words = _words(text, 6)
    if not words:
        return None
    start, end = draw.choice(words)
    place = draw.randrange(start + 2, end)
    return text[:place] + text[place].upper() + text[place + 1 :]


def _inserted(draw: random.Random, text: str, other: str) -> str:
    """Eight to twenty words of another paragraph in the middle of a sentence."""
    words = other.split()
    length = min(draw.randint(8, 20), len(words))
    first = draw.randrange(len(words) - length + 1)
    place = draw.choice(_gaps(text))
    return f"{text[:place]} {' '.join(words[first : first + length])}{text[place:]}"


def _beginning_cut(draw: random.Random, text: str, _: str) -> str | None:
    """A word has lost its beginning, and words before it are gone: `much worse rious social goals`."""
    words = _words(text, 6)
    if not words:
        return None
    start, end = draw.choice(words)
    return text[:start] + text[draw.randint(start + 2, end - 4) :]


def _end_cut(draw: random.Random, text: str, _: str) -> str | None:
    """A word has lost its end, and another part of the text follows: `Put anot is for`."""
    words, gaps = _words(text, 6), _gaps(text)
    if not words:
        return None
    start, end = draw.choice(words)
    after = [gap for gap in gaps if gap > end]
    rest = draw.choice(after[1:4] or after or [end])
    return text[: draw.randint(start + 2, end - 2)] + text[rest:]


CORRUPTIONS: dict[str, Callable[[random.Random, str, str], str | None]] = {
    "noise": _noise,
    "glued word": _glued,
    "case flip": _flipped,
    "inserted passage": _inserted,
    "beginning of a word cut": _beginning_cut,
    "end of a word cut": _end_cut,
}


def corruptions(part: str, count: int) -> Iterator[tuple[str, str, str]]:
    """Kind of corruption, kind of text and text: `count` of each corruption, from paragraphs of prose in a random order."""
    for kind, source, _, text in _corrupted(part, count):
        yield kind, source, text


def placed(part: str, count: int) -> Iterator[tuple[str, str, int]]:
    """Kind of corruption, text, and the first character at which it differs from the clean one."""
    for kind, _, clean, text in _corrupted(part, count):
        same = [left == right for left, right in zip(clean, text, strict=False)]
        yield kind, text, same.index(False) if False in same else len(same)


def _corrupted(part: str, count: int) -> Iterator[tuple[str, str, str, str]]:
    pools = paragraphs(part)
    sources = [(kind, text) for kind in PROSE for text in pools[kind]]
    for kind in CORRUPTIONS:
        draw, made = random.Random(f"{part} {kind}"), 0
        for seed, (source, text) in enumerate(draw.sample(sources, len(sources))):
            text_or_none = corrupted(kind, text, draw.choice(sources)[1], seed)
            if text_or_none is not None and text_or_none != text and made < count:
                made += 1
                yield kind, source, text, text_or_none
