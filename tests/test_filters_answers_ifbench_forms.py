"""Each check of IFBench on forms: a text that follows, one that does not, and one of which it cannot be told."""

from typing import Any

import pytest

from filters.answers.ifbench_forms import FORM_CHECKS

CAPITALS = (
    "Reykjavik, Helsinki, Oslo, Tallinn, Stockholm, Riga, Moscow, Copenhagen, Vilnius, Minsk, Dublin, Berlin, Amsterdam, "
    "Warsaw, London, Brussels, Prague, Luxembourg, Paris, Vienna, Bratislava, Budapest, Vaduz, Chisinau, Bern, Ljubljana, "
    "Zagreb"
)
AFRICA = (
    "Zimbabwe Zambia Uganda Tunisia Togo Tanzania Sudan South_Sudan South_Africa Somalia Sierra_Leone Seychelles Senegal "
    "Sao_Tome_and_Principe Rwanda Nigeria Niger Namibia Mozambique Morocco Mauritius Mauritania Mali Malawi Madagascar "
    "Libya Liberia Lesotho Kenya Ivory_Coast Guinea-Bissau Guinea Ghana Gambia Gabon Ethiopia Eswatini Eritrea "
    "Equatorial_Guinea Egypt Djibouti Democratic_Republic_of_the_Congo Congo Comoros Chad Central_African_Republic "
    "Cape_Verde Cameroon Burundi Burkina_Faso Botswana Benin Angola Algeria"
).split()
STORY = " ".join(f"{letter}nd so it went." for letter in "ABCDEFGHIJKLMNOPQRSTUVWXYZ")
OPTIONS = "\n".join(f"{letter}) one" for letter in "ABCDE")
QUIZ = "\n\n".join(f"Question {n}: What is {'very ' * n}old?\n{OPTIONS}" for n in range(1, 5))
CITIES = "ID,Country,City,Year,Count\n" + "\n".join(f"{n},A,B,2000,{n}" for n in range(7))
PRODUCTS = "ProductID,Category,Brand,Price,Stock\n" + "\n".join(f'{n},"a & b",c,1,2' for n in range(14))
GRADES = "\n".join(
    "\t".join(f'"{cell}"' for cell in row) for row in (["StudentID", "Subject", "Grade", "Semester", "Score"], *["12345"] * 3)
)
CASES: list[tuple[str, dict[str, Any], dict[bool | None, str]]] = [
    ("format:parentheses", {}, {True: "(a [b {c (d [e] d) c} b] a)", False: "(a [b {c (d) c} b] a)"}),
    (
        "format:quotes",
        {},
        {True: 'He said "she said \'they said "no" then\' so".', False: 'He said "no".', None: "\"It 'is' so\""},
    ),
    ("format:options", {"options": "yes/no/maybe"}, {True: "Yes.", False: "Yes, because it is so."}),
    ("format:options", {"options": "a), b), c), d)"}, {True: "a)", False: "e)", None: "a"}),
    ("format:newline", {}, {True: "one\ntwo\n\nthree", False: "one two\nthree", None: " "}),
    (
        "format:emoji",
        {},
        {True: "It is so \U0001f600. And so \u2764\ufe0f!", False: "It is so. And \U0001f600 so.", None: "Dr. Who \U0001f600."},
    ),
    ("format:line_indent", {}, {True: "a\n b\n  c", False: "a\nb", None: "a"}),
    ("format:quote_unquote", {}, {True: '"So" means yes.', False: 'He says "so".', None: "No quotes."}),
    ("format:list", {"sep": "!?!?"}, {True: "!?!? one\n!?!? two", False: "!?!? one", None: "one !?!? two !?!? three"}),
    (
        "format:thesis",
        {},
        {True: "<i>It is so.</i> Because it is.", False: "It is so.", None: "Intro.\n\n<em>It is so.</em> Why."},
    ),
    ("format:sub-bullets", {}, {True: "* a\n  - b\n* c\n  - d", False: "* a\n  - b\n* c"}),
    (
        "format:no_bullets_bullets",
        {},
        {True: "It is. It was.\n* a\n* b", False: "It is.\n* a\n* b", None: "It is. It was.\n* a\n* b\nSo."},
    ),
    ("format:title_case", {}, {True: "The Cat Sat", False: "The cat Sat", None: "The Cat on the Mat"}),
    (
        "format:output_template",
        {},
        {
            True: "My Answer: a My Conclusion: b Future Outlook: c",
            False: "My Answer: a Future Outlook: c",
            None: "My Conclusion: b My Answer: a Future Outlook: c",
        },
    ),
    ("format:no_whitespace", {}, {True: "abc", False: "a c", None: "abc\n"}),
    ("custom:multiples", {}, {True: "14, 21, 28, 35, 42, 49", False: "7, 14, 21, 28, 35, 42, 49"}),
    ("custom:mcq_count_length", {}, {True: QUIZ, False: QUIZ.replace("E) one", "", 1)}),
    (
        "custom:reverse_newline",
        {},
        {
            True: "\n".join(AFRICA).replace("_", " "),
            False: "\n".join(reversed(AFRICA)).replace("_", " "),
            None: "\n".join(AFRICA).replace("_", " ").replace("Zambia", "Zed"),
        },
    ),
    (
        "custom:word_reverse",
        {},
        {True: "eagle bald the is animal The", False: "The animal is the bald eagle", None: "bald eagle bald"},
    ),
    ("custom:character_reverse", {}, {True: ".elgae dlab eht si tI", False: "It is the bald eagle."}),
    ("custom:sentence_alphabet", {}, {True: STORY, False: STORY.replace("Bnd", "And")}),
    (
        "custom:european_capitals_sort",
        {},
        {True: CAPITALS, False: CAPITALS.replace("Oslo", "Rome"), None: CAPITALS.replace("Vaduz", "Somewhere")},
    ),
    ("custom:csv_city", {}, {True: CITIES, False: CITIES.replace("City", "Town")}),
    ("custom:csv_special_character", {}, {True: PRODUCTS, False: PRODUCTS.replace("a & b", "a b")}),
    ("custom:csv_quotes", {}, {True: GRADES, False: GRADES.replace('"', "")}),
    ("custom:date_format_list", {}, {True: "1796-04-12, 1800-06-14", False: "1796-02-30"}),
]


@pytest.mark.parametrize(("name", "arguments", "texts"), CASES, ids=[case[0] for case in CASES])
def test_each_check_tells_what_follows_from_what_does_not(
    name: str, arguments: dict[str, Any], texts: dict[bool | None, str]
) -> None:
    assert {wanted: FORM_CHECKS[name](text, arguments) for wanted, text in texts.items()} == {wanted: wanted for wanted in texts}


def test_every_check_has_its_cases() -> None:
    assert {name for name, _, _ in CASES} == FORM_CHECKS.keys()


def test_a_table_may_stand_in_a_fence() -> None:
    assert FORM_CHECKS["custom:csv_city"](f"```csv\n{CITIES}\n```", {}) is True


@pytest.mark.slow
@pytest.mark.parametrize("name", FORM_CHECKS)
def test_no_text_is_too_much_for_a_check(name: str) -> None:
    """Empty, without words, and long ones of one sign."""
    arguments = next(given for case, given, _ in CASES if case == name)
    for text in ("", "...", "\n\n", '"' * 20_000, "(" * 20_000, "a" * 100_000, "<i>" * 20_000, "\n" * 20_000, "a. " * 20_000):
        assert FORM_CHECKS[name](text, arguments) in (True, False, None)
