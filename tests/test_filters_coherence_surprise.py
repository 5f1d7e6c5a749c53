"""What surprisal says about findings and words, with readings written by hand."""

import re

import numpy as np

from filters.coherence.model import english
from filters.coherence.page import Findings, Page, lay_out
from filters.coherence.surprise import CAPS, FLAGS, PAIRS, confirmed, cut_inside, measured, tokens_of
from filters.coherence.words import words_of
from filters.tools import Reading

TEXT = "Wash the apples and cut them into small pieces. Put anot is for the people who do not like it."


def reading(text: str, hard: dict[str, float], sure: tuple[str, ...] = ()) -> Reading:
    """Each word with the blank before it is a token of one nat, or of as many as `hard` says. Before those of `sure` the model
    was sure of a continuation."""
    tokens = [(match[0].strip(), match.end()) for match in re.finditer(r"\s*[\w']+|\s*[^\w\s]", text)]
    nats = np.array([hard.get(word, 1.0) for word, _ in tokens], np.float32)
    best = np.minimum(nats, np.float32(0.05))
    continues = np.array([word in sure for word, _ in tokens], bool)
    return Reading(nats, best, continues, np.array([end for _, end in tokens], np.int32))


def spans(page: Page, findings: Findings) -> list[str]:
    return [page.text[a:b] for a, b in zip(findings.starts.tolist(), findings.ends.tolist(), strict=True)]


def cut(*texts: str, readings: list[Reading]) -> list[str]:
    page, known = lay_out(texts), english()
    words, _ = words_of(page, known)
    return spans(page, cut_inside(page, known, words, tokens_of(page, readings)))


def test_tokens_lie_where_their_texts_lie() -> None:
    """A text without tokens has none, and sums run over all texts."""
    page = lay_out(["ab cd", "", "ef"])
    tokens = tokens_of(page, [reading("ab cd", {"cd": 3.0}), Reading.empty(), reading("ef", {}, ("ef",))])

    assert tokens.document.tolist() == [0, 0, 2]
    assert [page.text[end - 2 : end] for end in tokens.ends.tolist()] == ["ab", "cd", "ef"]
    assert tokens.sums.tolist() == [0.0, 1.0, 4.0, 5.0]
    assert np.allclose(tokens.gap, [0.95, 2.95, 0.95])
    assert np.allclose(tokens.goes_on, [0, 0, np.exp(-0.05)])


def test_a_finding_has_to_surprise_the_model() -> None:
    """By the mean over its tokens, or by the gap of one of them or of the next."""
    page = lay_out(["see the torch.Tensor now"])
    findings = Findings.of(np.array([9]), np.array([21]), np.array([2.0]))

    def kept(hard: dict[str, float], **bounds: float) -> int:
        return len(confirmed(findings, tokens_of(page, [reading(page.text[1:-1], hard)]), **bounds).starts)

    assert kept({}, mean=1.0) == 1
    assert kept({}, mean=1.5) == 0
    assert kept({"Tensor": 9.0}, gap=8.0) == 1
    assert kept({"now": 9.0}, gap=8.0) == 1
    assert kept({"see": 9.0}, gap=8.0) == 0
    assert len(confirmed(findings, tokens_of(page, [Reading.empty()])).starts) == 0


def test_a_rare_word_whose_rest_the_model_expects_was_cut() -> None:
    """The same word is none where the model expected it, nor is a common word in its place."""
    odd = {"anot": 24.0, "is": 9.0, "for": 6.0}

    assert cut(TEXT, readings=[reading(TEXT, odd, ("is",))]) == ["anot"]
    assert cut(TEXT, readings=[reading(TEXT, {})]) == []
    common = TEXT.replace("anot", "sugar")
    assert cut(common, readings=[reading(common, {"sugar": 24.0, "is": 9.0, "for": 6.0})]) == []
    assert cut("", readings=[Reading.empty()]) == []


def test_a_text_is_measured_by_itself() -> None:
    """Whatever lies before or after it on the page."""
    other = "The library opens at nine and closes when the last reader has gone home, which is often late."
    known = english()

    def rows(*texts: str, of: int) -> np.ndarray:
        page = lay_out(texts)
        words, _ = words_of(page, known)
        readings = [reading(text, {"anot": 24.0, "library": 7.0}) for text in texts]
        chosen: np.ndarray = page.document[page.word_starts] == of
        return np.asarray(measured(page, known, words, tokens_of(page, readings))[chosen])

    alone = rows(TEXT, of=0)
    assert alone.shape == (19 + 1, len(CAPS) + len(FLAGS) + len(PAIRS))
    assert np.allclose(rows(other, TEXT, other, of=1), alone)
