"""The word sets and the spelling model."""

from pathlib import Path

import numpy as np
import pytest

from filters.coherence import model
from filters.coherence.page import CLASSES, lay_out, word_hashes


def test_known_words_are_members_and_invented_ones_are_not() -> None:
    """Function words are a set of their own; capitals inside a word are marked."""
    english = model.english()

    assert english.known.holds(word_hashes(["library", "tables", "xqzvkjwp"])).tolist() == [True, True, False]
    assert english.is_function_word(word_hashes(["the", "library"])).tolist() == [True, False]
    assert model.marked("PyTorch") == "^Py^Torch"


def test_odd_characters_are_more_surprising_than_prose() -> None:
    """Runs of blanks count as one blank."""
    page = lay_out(["The library opens at nine.", "xqzvkjwp qjzxkvw"])
    bits, positions = model.surprisals(page, model.english())
    document = page.document[positions]

    assert 2 * bits[document == 0].mean() < bits[document == 1].mean()
    assert len(model.squeezed(lay_out(["a    b"]))[0]) == len(model.squeezed(lay_out(["a b"]))[0])


def test_a_saved_model_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counts survive as quarters of their logarithm."""
    counts = np.zeros(CLASSES**4, np.int64)
    counts[7] = 1000
    sets = {name: ["alpha"] for name in model.SIZES}
    model.save(tmp_path / "english.npz", counts, np.zeros(128, np.uint8), np.zeros((8, 128), np.uint8), **sets)
    monkeypatch.setattr(model, "PATH", tmp_path / "english.npz")
    english = model.english.__wrapped__()

    assert english.known.holds(word_hashes(["alpha", "beta"])).tolist() == [True, False]
    assert english.spelling[7] < english.spelling[6]
