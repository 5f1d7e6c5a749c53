"""Languages of texts."""

import pytest

from filters.answers.languages import LEAST_LETTERS, is_in, languages

SAMPLES = {
    "de": "Der Hund schläft im großen Haus und will bei dem Regen heute nicht hinaus.",
    "en": "The dog sleeps in the large house and does not want to go out into the rain today.",
    "es": "El perro duerme en la casa grande y no quiere salir con la lluvia de hoy.",
    "fr": "Le chien dort dans la grande maison et ne veut pas sortir sous la pluie aujourd'hui.",
    "it": "Il cane dorme nella grande casa e oggi non vuole uscire con la pioggia.",
    "pl": "Pies śpi w dużym domu i nie chce dziś wychodzić na deszcz.",
    "sw": "Mbwa analala katika nyumba kubwa na hataki kutoka nje kwenye mvua leo.",
    "uk": "Собака спить у великому будинку і не хоче виходити.",  # noqa: RUF001
    "zh": "我喜欢吃苹果，也喜欢在周末去公园散步，然后回家看书。",  # noqa: RUF001
}


@pytest.mark.parametrize("language", SAMPLES)
def test_a_sentence_is_in_its_language_and_in_no_other(language: str) -> None:
    """Languages of one script are told apart."""
    assert [is_in(SAMPLES[language], other) for other in SAMPLES] == [other == language for other in SAMPLES]


@pytest.mark.parametrize("text", ["", "Hello", "12345 " * 20, "a" * (LEAST_LETTERS - 1), "x = y; z = w; print(x + y)"])
def test_short_texts_and_texts_without_words_are_not_known(text: str) -> None:
    assert is_in(text, "en") is None


def test_a_region_is_no_other_language() -> None:
    assert is_in(SAMPLES["en"], "en-GB")
    with pytest.raises(ValueError, match="language 'tlh'; known are"):
        is_in(SAMPLES["en"], "tlh")


def test_the_languages_of_ifeval_are_known() -> None:
    ifeval = "en es pt ar hi fr ru de ja it bn uk th ur ta te bg ko pl he fa vi ne sw kn mr gu pa ml fi".split()

    assert set(ifeval) <= set(languages())
