"""Units and money: the difference between `10 cm` and `10 m`."""

import re
from dataclasses import dataclass
from fractions import Fraction

Dimensions = tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class Unit:
    """A unit: the power of each dimension that it measures, and its size in base units."""

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
    units: dict[str, Unit] = {}
    for dimension, entries in table.items():
        for entry in entries.split("|"):
            names, _, scale = entry.partition("=")
            for name in names.split():
                units[name] = Unit(((dimension, 1),) if dimension else (), Fraction(scale))
    for name, (numerator, denominator) in {
        "mph": ("mi", "h"),
        "kph": ("km", "h"),
        "kmh": ("km", "h"),
        "fps": ("ft", "s"),
    }.items():
        units[name] = Unit((("length", 1), ("time", -1)), units[numerator].scale / units[denominator].scale)
    return units


UNITS = _units()
_MEASURED = frozenset(name for unit in UNITS.values() for name, _ in unit.dimensions)


def is_known(unit: Unit) -> bool:
    """Whether a unit measures something, and is no mere word such as apples."""
    return all(name in _MEASURED for name, _ in unit.dimensions)


_CURRENCY = re.compile(r"^([+-]?)\s*([$\u20ac\u00a3\u00a5\u20b9])\s*([+-]?)(.+)$")
_NAME = r"(?:\u00b0[CF]?|%|\u00a2|[$\u20ac\u00a3\u00a5\u20b9]|[A-Za-z]+)"
_SUFFIX = re.compile(
    rf"^(?P<value>.*?[\d)}}\]!]|.*?\\pi)(?P<gap>\s*)(?P<unit>{_NAME}(?:\s*\^?\s*\{{?-?[1-4]\}}?)?(?:\s*(?:/|\bper\b|\*)\s*{_NAME}(?:\s*\^?\s*\{{?-?[1-4]\}}?)?){{0,3}}|"
    r"(?:sq|cu)\.? [A-Za-z]{1,12}|[A-Za-z]{3,}(?: [A-Za-z]{2,}){0,3})$"
)
_PART = re.compile(rf"({_NAME})\s*(?:\^?\s*\{{?(-?[1-4])\}}?)?")
_PREFIX = {"square": 2, "sq": 2, "cubic": 3, "cu": 3}
_NOT_UNITS = frozenset({"and", "for", "than", "the", "not", "all", "any", "where", "with", "real"})


def split_unit(text: str) -> tuple[str, Unit | None]:
    """The value of a quantity, as text, and its unit if it has one. An unknown word (apples) is a dimension of its own."""
    currency = _CURRENCY.match(text)
    if currency:
        amount, unit = split_unit(currency[4])
        money = UNITS[currency[2]]
        return f"{currency[1]}{currency[3]}{amount}", money if unit is None or unit == money else None
    match = _SUFFIX.match(text)
    if match is None:
        return text, None
    unit = unit_of(match["unit"], attached=not match["gap"])
    return (text, None) if unit is None else (match["value"].rstrip(), unit)


def unit_of(text: str, *, attached: bool) -> Unit | None:
    """The unit that a text names, or None. A single letter attached to a number is a variable, not a unit."""
    words = text.split()
    if len(words) >= 2 and words[0].lower().removesuffix(".") in _PREFIX:
        inner = unit_of(" ".join(words[1:]), attached=attached)
        if inner is None:
            return None
        power = _PREFIX[words[0].lower().removesuffix(".")]
        return Unit(tuple((name, n * power) for name, n in inner.dimensions), inner.scale**power)
    powers: dict[str, int] = {}
    scale, sign, position = Fraction(1), 1, 0
    text = re.sub(r"\bper\b", "/", text)
    while position < len(text):
        while position < len(text) and text[position] in " */":
            sign = -1 if text[position] == "/" else sign
            position += 1
        match = _PART.match(text, position)
        if match is None:
            return None
        unit = _named(match[1], attached=attached and position == 0)
        if unit is None:
            return None
        power = sign * int(match[2] or 1)
        scale *= unit.scale**power
        for name, n in unit.dimensions:
            powers[name] = powers.get(name, 0) + n * power
        position = match.end()
    if powers.get("length") == 3 and len(powers) == 1:  # a litre is a cubic decimetre
        return Unit((("volume", 1),), scale * 1000)
    return Unit(tuple(sorted((name, n) for name, n in powers.items() if n)), scale)


def _named(name: str, *, attached: bool) -> Unit | None:
    """The unit of a single name."""
    if len(name) == 1 and name.isalpha() and attached:
        return None
    known = UNITS.get(name) or (UNITS.get(name.lower()) if len(name) > 2 else None)
    if known is not None:
        return known
    low = name.lower()
    if len(low) < 3 or low in _NOT_UNITS:
        return None
    return Unit(((low.removesuffix("s"), 1),), Fraction(1))
