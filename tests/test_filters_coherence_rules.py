"""The rules that know English, each by itself."""

from filters.coherence.model import english
from filters.coherence.page import Findings, Page, lay_out
from filters.coherence.rules import case, full_stops, noise, signs
from filters.coherence.words import words_of


def spans(page: Page, findings: Findings) -> list[str]:
    return [page.text[a:b] for a, b in zip(findings.starts.tolist(), findings.ends.tolist(), strict=True)]


def test_the_hardest_run_to_predict_is_found_in_each_window() -> None:
    """It scores high where characters are odd, and names in capitals do not count."""
    odd = 'We can see that the answer is thhhhsYV"Cp!}"=OEtm! because the sum of both is even.'
    named = "We can see that the answer is TCA_ACT_FLAGS because the sum of both is even, they say."
    page = lay_out([odd, named])
    _, prose = words_of(page, english())
    findings = noise(page, english(), prose)
    best = {int(page.document[start]): score for start, score in zip(findings.starts, findings.scores, strict=True)}

    assert best[0] > 58
    assert best.get(1, 0) < 30


def test_capitals_inside_words_are_glue_or_flips() -> None:
    """A name that a list has is neither."""
    page = lay_out(["It is best for their ownYou're free to choose the generatiOn of it with JavaScript."])
    words, _ = words_of(page, english())
    found = case(page, english(), words)

    assert spans(page, found["camel"]) == ["ownYou're"]
    assert spans(page, found["flips"]) == ["generatiOn"]


def test_sentences_need_a_space_between_them() -> None:
    """A name such as resolver.Resolver or (torch.Tensor) does not."""
    text = "This is where the story comes to an end.Next we look at the resolver.Resolver for all of us (the torch.Tensor)."
    page = lay_out([text])
    words, _ = words_of(page, english())

    assert spans(page, full_stops(page, english(), words)) == ["end.Next"]


def test_signs_of_code_inside_a_token_of_prose_are_found() -> None:
    """Signs at its ends are not."""
    page = lay_out(["We can see that the answer is a]b{c=d+ef and this is (the end) of all that we have."])
    _, prose = words_of(page, english())

    assert spans(page, signs(page, prose)) == ["a]b{c=d+ef"]
