"""Fits the weights with which `coherence_model` finds words that were cut (filters/coherence/surprise.py).

python benchmarks/coherence_fit.py [--corrupted N]

Two logistic regressions, one for each cut, on the words of the part `calibrate` of coherence_corpus.py: the words that were cut,
and those of the 2,000 clean paragraphs. Prints biases and weights, and for each bound from which a paragraph would be flagged the
shares of clean and of corrupted ones. Takes 3 minutes on two cores.
"""

import argparse
import sys
from collections.abc import Sequence

import coherence_corpus
import numpy as np
import verifiers
from coherence import engine
from numpy.typing import NDArray

from filters.coherence.model import english
from filters.coherence.page import lay_out
from filters.coherence.surprise import CAPS, FLAGS, PAIRS, eligible, measured, tokens_of
from filters.coherence.words import words_of
from filters.tools import Reading
from schemas.engines import ModelSpec
from thresher.judging.model_engines import ModelEngines

CUTS = ("beginning of a word cut", "end of a word cut")
SHOWN = ("", *CUTS)
CUT_WEIGHS = 5.0
"""How much a word that was cut counts; there are thousands of clean ones for each."""
RIDGE = 5e-5
STEPS = 60
BOUNDS = tuple(np.arange(1.0, 7.0, 0.25))

Floats = NDArray[np.float64]


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--corrupted", type=int, default=200, help="paragraphs of each cut")
    options = parser.parse_args(arguments)
    texts = [("", text, -1) for part in coherence_corpus.paragraphs("calibrate").values() for text in part]
    texts += [
        (kind, text, place) for kind, text, place in coherence_corpus.placed("calibrate", options.corrupted) if kind in CUTS
    ]
    measures, document, spans = _words([text for _, text, _ in texts])
    kinds, places = np.array([kind for kind, _, _ in texts]), np.array([place for *_, place in texts])
    cut = (spans[:, 0] <= places[document]) & (spans[:, 1] >= places[document])
    clean = kinds[document] == ""
    print(" ".join([*CAPS, *FLAGS, *("*".join(pair) for pair in PAIRS)]))
    for kind in CUTS:
        positive = cut & (kinds[document] == kind)
        chosen = positive | clean
        bias, weights = _fitted(measures[chosen], positive[chosen])
        print(f"{kind}: {bias:.2f}, {tuple(np.round(weights, 3).tolist())}")
        worst = np.full(len(texts), -np.inf)
        np.maximum.at(worst, document, bias + measures @ weights)
        shares = [
            {of or "clean": round(100 * float((worst[kinds == of] > bound).mean()), 2) for of in ("", *CUTS)} for bound in BOUNDS
        ]
        verifiers.table([{"bound": float(bound), **row} for bound, row in zip(BOUNDS, shares, strict=True)])
    return 0


def _words(texts: list[str]) -> tuple[Floats, NDArray[np.int64], NDArray[np.int64]]:
    """Measures (N, M) of the words that can be found, the text (N) of each, and where it starts and ends in it (N, 2)."""
    with ModelEngines() as engines:
        read = engines.reader(engine(), ModelSpec()).readings(texts)
    readings = [reading if isinstance(reading, Reading) else Reading.empty() for reading in read]
    page, known = lay_out(texts), english()
    words, _ = words_of(page, known)
    rows = eligible(page, words)
    document = page.document[page.word_starts[rows]].astype(np.int64)
    spans = np.stack((page.word_starts[rows], page.word_ends[rows]), 1) - page.starts[document][:, None]
    return measured(page, known, words, tokens_of(page, readings))[rows], document, spans


def _fitted(measures: Floats, positive: NDArray[np.bool_]) -> tuple[float, Floats]:
    """Bias and weights of a logistic regression, by Newton's method."""
    mean, deviation = measures.mean(0), measures.std(0) + 1e-6
    scaled = np.column_stack((np.ones(len(measures)), (measures - mean) / deviation))
    weight = np.where(positive, CUT_WEIGHS, 1.0) / len(measures)
    ridge = 2 * RIDGE * np.append(0.0, np.ones(measures.shape[1]))
    values = np.append(-5.0, np.zeros(measures.shape[1]))

    def loss(values: Floats) -> float:
        logits = scaled @ values
        return float(weight @ np.logaddexp(0, np.where(positive, -logits, logits)) + (ridge @ values**2) / 2)

    for _ in range(STEPS):
        chance = 1 / (1 + np.exp(-np.clip(scaled @ values, -30, 30)))
        slope = scaled.T @ (weight * (chance - positive)) + ridge * values
        curve = (scaled * (weight * chance * (1 - chance))[:, None]).T @ scaled + np.diag(ridge + 1e-9)
        step = np.linalg.solve(curve, slope)
        size = 1.0
        while loss(values - size * step) > loss(values) and size > 1e-6:
            size /= 2
        values = values - size * step
    weights = values[1:] / deviation
    return float(values[0] - weights @ mean), weights


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
