"""The setting that a study recommends."""

import numpy as np

from helpers.studies import measures_of
from thresher.study.bootstrap import FamilySample
from thresher.study.measures import Measures
from thresher.study.recommendation import recommended


def test_twice_the_recommended_volume_brings_less_than_a_tenth_more() -> None:
    """A volume is compared with its double, and a temperature is recommended only if its interval beats that of 1."""
    totals = {1: 1.0, 2: 1.9, 4: 3.5, 8: 6.0, 12: 7.5, 16: 7.9, 24: 8.6}
    volumes = tuple(totals)

    def model(hot: float, **changed: float) -> Measures:
        solutions = np.tile(np.array([{**totals, **{int(k[1:]): v for k, v in changed.items()}}[k] for k in volumes]), (40, 4, 1))
        solutions[:, 3] *= np.random.default_rng(7).choice([0.0, hot], (40, 1))
        solutions[:, 1] *= 0.9
        return measures_of(40, draws=24, volumes=volumes, solutions=solutions, pass_at_k=np.zeros((40, 4, 7)))

    settings, reason = recommended(FamilySample(model(2.2), "one", np.arange(40), 0))
    assert settings == {"sampling.temperature": 1.0, "sampling.samples_per_prompt": 24}
    assert "take more" in reason
    settings, reason = recommended(FamilySample(model(2.2, _24=8.0), "one", np.arange(40), 0))
    assert settings["sampling.samples_per_prompt"] == 12
    assert "24 draws of a prompt have less than a tenth more solutions than 12" in reason
