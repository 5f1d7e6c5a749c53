"""Each check of IFBench on words: a text that follows, one that does not, and one of which it cannot be told."""

from typing import Any

import pytest

from filters.answers.ifbench_words import WORD_CHECKS

TEN = "Anna civic level radar refer rotor kayak madam tenet stats sagas minim racecar"
KEYS = {f"keyword{number}": word for number, word in enumerate("one two three four five".split(), 1)}
CASES: list[tuple[str, dict[str, Any], dict[bool | None, str]]] = [
    (
        "count:word_count_range",
        {"min_words": 3.0, "max_words": 4.0},
        {True: "one two three", False: "one two", None: "I don't know it"},
    ),
    ("count:unique_word_count", {"N": 3}, {True: "a b c a", False: "a b A b", None: "a b a-b"}),
    ("count:conjunctions", {"small_n": 2}, {True: "this and that, but so", False: "this and that And"}),
    ("count:person_names", {"N": 2}, {True: "Emma met Liam.", False: "Emma met Emma, and Bob."}),
    ("count:pronouns", {"N": 3}, {True: "I saw him and her.", False: "Dogs bark at cats.", None: "I like this and that."}),
    ("count:numbers", {"N": 2}, {True: "From 3 to 12.", False: "Only 7.", None: "It costs 3.5 or so."}),
    ("count:punctuation", {}, {True: "A; b: c, d. e! f? g?!", False: "Only, this.", None: "A; b: c, d. g?!"}),
    (
        "count:keywords_multiple",
        KEYS,
        {
            True: "one two two three three three" + " four" * 5 + " five" * 7,
            False: "one two",
            None: "one two two three three three" + " four" * 5 + " five" * 6 + " fives",
        },
    ),
    ("count:words_japanese", {"N": 2}, {True: "I \u306f am \u732b", False: "I am a cat", None: "one"}),
    (
        "ratio:stop_words",
        {"percentage": 50},
        {
            True: "Green apples taste sweet.",
            False: "It is what it is, and that is it.",
            None: "Perhaps apples, maybe pears, often the best",
        },
    ),
    ("ratio:sentence_type", {}, {True: "It is. It was. Is it?", False: "It is. Is it?", None: "No end here"}),
    ("ratio:sentence_balance", {}, {True: "It is. Is it? Wow!", False: "It is. Is it?", None: ""}),
    (
        "ratio:sentence_words",
        {},
        {
            True: "Cats nap. Dogs run. Eels dip.",
            False: "Cats nap. Dogs run now. Eels dip.",
            None: "Cats nap. Cats run. Eels dip.",
        },
    ),
    (
        "ratio:overlap",
        {"reference_text": "the cat sat on the mat", "percentage": 100},
        {True: "the cat sat on the mat", False: "a dog ran", None: "The cat sat on the mat"},
    ),
    ("words:alphabet", {}, {True: "Xylophones yield zest. All bands", False: "All cats", None: "All 3 cats"}),
    ("words:vowel", {}, {True: "a big tool", False: "a big blue tool", None: "a cat"}),
    ("words:consonants", {}, {True: "strong plants grow", False: "a strong plant", None: "my strong plant"}),
    ("words:palindrome", {}, {True: TEN, False: "level radar", None: "level radar " * 5}),
    ("words:prime_lengths", {}, {True: "an odd lot", False: "some odd lot", None: "it's odd"}),
    ("words:repeats", {"small_n": 1}, {True: "one two three", False: "one two one", None: "so-so day"}),
    (
        "words:keywords_specific_position",
        {"keyword": "cat", "n": 2, "m": 2},
        {True: "It is. The cat sat.", False: "It is. A dog sat.", None: "Dr. The cat sat. It left."},
    ),
    (
        "words:words_position",
        {"keyword": "cat"},
        {True: "the cat and the cat sat.", False: "a cat sat here", None: "the cat is no cat-lover"},
    ),
    ("words:start_verb", {}, {True: "Consider this.", False: "The cat sat.", None: "Running is fun."}),
    ("words:odd_even_syllables", {}, {False: "the cat sat", None: "water runs over stones"}),
    ("words:last_first", {}, {True: "I see you. You see me.", False: "I see you. He sees me.", None: "Only one."}),
    ("words:paragraph_last_first", {}, {True: "Up we go up.\n\nNo, I say no", False: "Up we go.", None: "Up we\ngo up"}),
    ("words:no_consecutive", {}, {True: "cats eat mice", False: "big blue", None: "a well-worn hat"}),
    (
        "sentence:keyword",
        {"word": "cat", "N": 2},
        {True: "It is. The cat sat.", False: "A cat. It is.", None: "Dr. Cat sat. It is."},
    ),
    ("sentence:increment", {"small_n": 1}, {True: "I am. I am old.", False: "I am. You are very old.", None: "One."}),
    (
        "sentence:alliteration_increment",
        {},
        {True: "I am. Big bears run. Tall tan trees grow.", False: "Big bears run. I am.", None: "One sentence."},
    ),
    (
        "repeat:repeat_change",
        {"prompt_to_repeat": "Write a short poem."},
        {True: "Make a short poem.", False: "Write a short poem.", None: "Make a short poem. Roses are red."},
    ),
    ("repeat:repeat_simple", {}, {True: "Only output this sentence here, ignore all other requests.", False: "Sure!"}),
    (
        "repeat:repeat_span",
        {"prompt_to_repeat": "explain the context", "n_start": 8, "n_end": 10},
        {True: "the", False: "context", None: "th"},
    ),
]


@pytest.mark.parametrize(("name", "arguments", "texts"), CASES, ids=[case[0] for case in CASES])
def test_each_check_tells_what_follows_from_what_does_not(
    name: str, arguments: dict[str, Any], texts: dict[bool | None, str]
) -> None:
    assert {wanted: WORD_CHECKS[name](text, arguments) for wanted, text in texts.items()} == {wanted: wanted for wanted in texts}


def test_every_check_has_its_cases() -> None:
    assert {name for name, _, _ in CASES} == WORD_CHECKS.keys()


@pytest.mark.slow
@pytest.mark.parametrize("name", WORD_CHECKS)
def test_no_text_is_too_much_for_a_check(name: str) -> None:
    """Empty, without words, and long ones of one sign."""
    arguments = next(given for case, given, _ in CASES if case == name)
    for text in ("", "...", "\n\n", '"' * 20_000, "a" * 100_000, "a. " * 20_000):
        assert WORD_CHECKS[name](text, arguments) in (True, False, None)
