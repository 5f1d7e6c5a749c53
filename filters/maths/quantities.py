"""Units, money, dates, times and numbers of other bases: what makes `10 cm` another answer than `10 m`."""

import re
from dataclasses import dataclass
from fractions import Fraction

Dimensions = tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class Unit:
    """A unit: what it measures (dimension to power), and how many of the base unit it is."""

    dimensions: Dimensions
    scale: Fraction


def _units() -> dict[str, Unit]:
    table = {
        "length": "m meter meters metre metres=1|mm millimeter millimeters millimetre millimetres=1/1000|cm centimeter "
        "centimeters centimetre centimetres=1/100|dm=1/10|km kilometer kilometers kilometre kilometres=1000|"
        "in inch inches=127/5000|ft foot feet=381/1250|yd yard yards=1143/1250|mi mile miles=201168/125|nm=1/1000000000",
        "mass": "kg kilogram kilograms=1|g gram grams=1/1000|mg milligram milligrams=1/1000000|t ton tons tonne tonnes=1000|"
        "lb lbs pound pounds=45359237/100000000|oz ounce ounces=45359237/1600000000",
        "time": "s sec secs second seconds=1|ms millisecond milliseconds=1/1000|min mins minute minutes=60|h hr hrs hour "
        "hours=3600|day days=86400|week weeks=604800|month months=2629746|year years=31556952",
        "dollar": "$ dollar dollars USD usd=1|cent cents \u00a2=1/100",
        "euro": "\u20ac euro euros EUR=1",
        "pound sterling": "\u00a3 GBP=1",
        "yen": "\u00a5 yen JPY=1",
        "rupee": "\u20b9 rupee rupees Rs=1",
        "volume": "L l liter liters litre litres=1|mL ml milliliter milliliters millilitre millilitres=1/1000|gal gallon "
        "gallons=473176473/125000000",
        "angle": "\u00b0 degree degrees deg=1",
        "celsius": "\u00b0C=1",
        "fahrenheit": "\u00b0F=1",
        "kelvin": "K=1",
        "current": "A=1",
        "force": "N newton newtons=1",
        "energy": "J joule joules=1|kJ=1000|cal=523/125|kcal=4184",
        "power": "W watt watts=1|kW=1000",
        "": "%  percent=1/100",
    }
    made: dict[str, Unit] = {}
    for dimension, entries in table.items():
        for entry in entries.split("|"):
            names, _, scale = entry.partition("=")
            for name in names.split():
                made[name] = Unit(((dimension, 1),) if dimension else (), Fraction(scale))
    for name, (numerator, denominator) in {
        "mph": ("mi", "h"),
        "kph": ("km", "h"),
        "kmh": ("km", "h"),
        "fps": ("ft", "s"),
    }.items():
        one, other = made[numerator], made[denominator]
        made[name] = Unit((("length", 1), ("time", -1)), one.scale / other.scale)
    return made


UNITS = _units()
_CURRENCY = re.compile(r"^([+-]?)\s*([$\u20ac\u00a3\u00a5\u20b9])\s*([+-]?)(.+)$")
_NAME = r"(?:\u00b0[CF]?|%|\u00a2|[$\u20ac\u00a3\u00a5\u20b9]|[A-Za-z]+)"
_SUFFIX = re.compile(
    rf"^(?P<value>.*?[\d)}}\]!]|.*?\\pi)(?P<gap>\s*)(?P<unit>{_NAME}(?:\s*\^?\s*\{{?-?[1-4]\}}?)?(?:\s*(?:/|\bper\b|\*)\s*{_NAME}(?:\s*\^?\s*\{{?-?[1-4]\}}?)?){{0,3}}|"
    r"[A-Za-z]{3,}(?: [A-Za-z]{2,}){0,3})$"
)
_PART = re.compile(rf"({_NAME})\s*(?:\^?\s*\{{?(-?[1-4])\}}?)?")
_PREFIX = {"square": 2, "sq": 2, "cubic": 3, "cu": 3}
_NOT_UNITS = frozenset({"and", "for", "than", "the", "not", "all", "any", "where", "with", "real"})


def split_unit(text: str) -> tuple[str, Unit | None]:
    """The value of a quantity, as text, and its unit; None where there is none. An unknown word (apples) is its own dimension."""
    currency = _CURRENCY.match(text)
    if currency:
        rest, other = split_unit(currency[4])
        known = UNITS[currency[2]]
        return f"{currency[1]}{currency[3]}{rest}", known if other is None or other == known else None
    match = _SUFFIX.match(text)
    if match is None:
        return text, None
    unit = unit_of(match["unit"], attached=not match["gap"])
    return (text, None) if unit is None else (match["value"].rstrip(), unit)


def unit_of(text: str, *, attached: bool) -> Unit | None:
    """The unit that a text names, or None. One letter right behind a number is a variable, not a unit."""
    words = text.split()
    if len(words) >= 2 and words[0].lower() in _PREFIX:
        inner = unit_of(" ".join(words[1:]), attached=attached)
        if inner is None:
            return None
        power = _PREFIX[words[0].lower()]
        return Unit(tuple((name, n * power) for name, n in inner.dimensions), inner.scale**power)
    powers: dict[str, int] = {}
    scale, sign, at = Fraction(1), 1, 0
    text = re.sub(r"\bper\b", "/", text)
    while at < len(text):
        while at < len(text) and text[at] in " */":
            sign = -1 if text[at] == "/" else sign
            at += 1
        match = _PART.match(text, at)
        if match is None:
            return None
        unit = _one(match[1], attached=attached and at == 0)
        if unit is None:
            return None
        power = sign * int(match[2] or 1)
        scale *= unit.scale**power
        for name, n in unit.dimensions:
            powers[name] = powers.get(name, 0) + n * power
        at = match.end()
    if powers.get("length") == 3 and len(powers) == 1:  # a litre is a cubic decimetre
        return Unit((("volume", 1),), scale * 1000)
    return Unit(tuple(sorted((name, n) for name, n in powers.items() if n)), scale)


def _one(name: str, *, attached: bool) -> Unit | None:
    if len(name) == 1 and name.isalpha() and attached:
        return None
    known = UNITS.get(name) or (UNITS.get(name.lower()) if len(name) > 2 else None)
    if known is not None:
        return known
    low = name.lower()
    if len(low) < 3 or low in _NOT_UNITS:
        return None
    return Unit(((low.removesuffix("s"), 1),), Fraction(1))


# -- dates and times ---------------------------------------------------------------------------------------------------------

_MONTHS = "january february march april may june july august september october november december"
_MONTH = {name[:length]: number for number, name in enumerate(_MONTHS.split(), 1) for length in (3, 4, len(name))}
_ISO = re.compile(r"(\d{4})[-/.](\d{1,2})[-/.](\d{1,2})")
_SHORT = re.compile(r"(\d{1,2})[-/.](\d{1,2})[-/.](\d{4})")
_MONTH_FIRST = re.compile(r"(?:[A-Za-z]+day,?\s+)?([A-Za-z]{3,9})\.?\s+(\d{1,2})(?:st|nd|rd|th)?(?:,?\s+(\d{4}))?")
_DAY_FIRST = re.compile(r"(?:[A-Za-z]+day,?\s+)?(\d{1,2})(?:st|nd|rd|th)?(?:\s+of)?\s+([A-Za-z]{3,9})\.?(?:,?\s+(\d{4}))?")
_TIME = re.compile(
    r"(\d{1,2})(?::(\d{2}))?(?::(\d{2}))?\s*([AaPp])\.?\s*[Mm]\.?|(\d{1,2}):(\d{2})(?::(\d{2}))?(?:\s*(?:h|hours|o'clock))?"
)
Date = tuple[int | None, int, int]
Time = tuple[int, int, int, bool]


def dates(text: str) -> frozenset[Date]:
    """The dates (year or None, month, day) that a text may mean: two for 1/2/2024, none where it is no date."""
    if match := _ISO.fullmatch(text):
        found = [(int(match[1]), int(match[2]), int(match[3]))]
    elif match := _SHORT.fullmatch(text):
        one, other, year = int(match[1]), int(match[2]), int(match[3])
        found = [(year, one, other), (year, other, one)]
    elif (match := _MONTH_FIRST.fullmatch(text)) and (month := _MONTH.get(match[1].lower())):
        return frozenset({(int(match[3]) if match[3] else None, month, int(match[2]))})
    elif (match := _DAY_FIRST.fullmatch(text)) and (month := _MONTH.get(match[2].lower())):
        return frozenset({(int(match[3]) if match[3] else None, month, int(match[1]))})
    else:
        return frozenset()
    return frozenset(date for date in found if 1 <= date[1] <= 12 and 1 <= date[2] <= 31)


def time_of(text: str) -> Time | None:
    """Hours (of 24), minutes, seconds, and whether morning or afternoon is known."""
    low = text.lower().strip()
    if low in ("noon", "midnight"):
        return (12 if low == "noon" else 0, 0, 0, True)
    match = _TIME.fullmatch(text)
    if match is None:
        return None
    if match[4]:
        hour = int(match[1]) % 12 + 12 * (match[4] in "Pp")
        return (hour, int(match[2] or 0), int(match[3] or 0), True) if 1 <= int(match[1]) <= 12 else None
    hour, minute = int(match[5]), int(match[6])
    return (hour, minute, int(match[7] or 0), hour > 12 or hour == 0) if hour < 25 and minute < 60 else None


def same_time(gold: Time, answer: Time) -> bool:
    """Equal, the half of the day counting only where both name it."""
    if gold[3] and answer[3]:
        return gold[:3] == answer[:3]
    return (gold[0] % 12, *gold[1:3]) == (answer[0] % 12, *answer[1:3])


# -- bases -------------------------------------------------------------------------------------------------------------------

_BASED = re.compile(r"([0-9][0-9A-Fa-f]*|[A-Fa-f][0-9A-Fa-f]*[0-9][0-9A-Fa-f]*)\s*_\s*\{?\s*(\d{1,2})\s*\}?")
_PREFIXED = re.compile(r"0([xXbBoO])([0-9A-Fa-f]+)")


def based(text: str) -> tuple[int, str] | None:
    """The value of a number that names its base (1010_2, 0x1F), and its digits."""
    if match := _BASED.fullmatch(text):
        base, digits = int(match[2]), match[1]
    elif match := _PREFIXED.fullmatch(text):
        base, digits = {"x": 16, "b": 2, "o": 8}[match[1].lower()], match[2]
    else:
        return None
    try:
        return int(digits, base), digits.lstrip("0").lower()
    except ValueError:
        return None
