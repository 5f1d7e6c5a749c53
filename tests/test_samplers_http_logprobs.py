"""Log-probabilities in the forms of both APIs, and their calibration."""

from typing import Any

import numpy as np
import pytest

from thresher.estimators.calibration import empty_sums
from thresher.samplers.http.logprobs import calibrate, label_logprobs, numbers, read_logprobs, shown_text, token_numbers, with_top
from thresher.samplers.sampler import Completion


def test_the_list_of_tokens_does_not_depend_on_the_draw() -> None:
    """A tie at every rank, listed as vLLM does in chat: the drawn token first, instead of the last of the top 5."""
    p = np.array([0.2, 0.2, 0.15, 0.15, 0.1, 0.1, 0.05, 0.05])
    total, weight = empty_sums(), empty_sums()
    for drawn in range(len(p)):
        listed = [drawn, *(other for other in range(5) if other != drawn)][:5]
        top = [{"token": f"token_id:{token}", "logprob": float(np.log(p[token]))} for token in listed]
        tokens, _, tops = read_logprobs({"content": [{**top[0], "top_logprobs": top}]})
        calibrated = calibrate(tokens, tops, 5)
        assert calibrated is not None and calibrated[1] == 0
        sums = calibrated[0]
        total += p[drawn] * sums
        weight[:, 1] = sums[:, 1]

    assert total[:, 0] == pytest.approx(weight[:, 1])


def test_positions_whose_list_a_neighbour_took_are_left_out() -> None:
    """vLLM's server writes -9999 for minus infinity. A short list that holds all of the probability is whole."""
    full = [(0, float(np.log(0.5))), (1, float(np.log(0.3))), (2, float(np.log(0.1)))]
    taken = [(0, float(np.log(0.5))), (1, -9999.0), (2, -9999.0)]
    short = [(0, float(np.log(0.6))), (1, float(np.log(0.4)))]
    calibrated = calibrate([0, 0, 1], [full, taken, short], 3)

    assert calibrated is not None
    assert calibrated[1] == 1
    assert calibrated[0][:, 0].sum() == 2


@pytest.mark.parametrize("value", [0.01, 45.0])
def test_values_above_0_are_no_log_probabilities(value: float) -> None:
    with pytest.raises(ValueError, match=r"impossible: logits\?"):
        numbers([-1.0, value])
    assert len(numbers([1e-4, -2])) == 2


def test_label_logprobs_add_up_spellings_with_and_without_a_space() -> None:
    probabilities = {" A": 0.5, "A": 0.25, "C": 0.05}
    listed = [{"token": token, "logprob": float(np.log(p))} for token, p in probabilities.items()]
    chat = {"content": [{"top_logprobs": listed}]}
    plain = {"top_logprobs": [{entry["token"]: entry["logprob"] for entry in listed}]}

    for fields in (chat, plain):
        assert list(label_logprobs(fields, ("A", "B")) or ()) == pytest.approx([np.log(0.75), -np.inf])
    assert label_logprobs(chat, ("X", "Y")) is None
    assert label_logprobs({}, ("A", "B")) is None


@pytest.mark.parametrize("values", [[None], ["1"], [True], [float("inf")], [-1.0, float("nan")], [{}]])
def test_only_finite_numbers_are_log_probabilities(values: list[Any]) -> None:
    assert numbers([-1, -0.5]).tolist() == [-1.0, -0.5]
    with pytest.raises(ValueError, match="log-probabilities"):
        numbers(values)


@pytest.mark.parametrize("values", ["12", [1.0], ["1"], [True], [-1], [None], None])
def test_only_numbers_from_0_on_are_tokens(values: Any) -> None:
    assert token_numbers([0, 7], "token_ids").tolist() == [0, 7]
    with pytest.raises(ValueError, match="token_ids: wanted a list of token ids"):
        token_numbers(values, "token_ids")


def test_the_text_of_tokens_is_known_if_each_is_a_whole_character() -> None:
    entries = [{"token": "Pa", "logprob": -1.0}, {"token": "ris", "logprob": -1.0}]
    texts = [read_logprobs({"content": [*entries, *further]}) for further in ([], [{"token": "�", "logprob": -1.0}])]
    named = read_logprobs({"tokens": ["token_id:3"], "token_logprobs": [-1.0]})

    assert [shown_text(drawn) for drawn in (*texts, named)] == ["Paris", None, None]


def test_likeliest_tokens_without_a_number_are_not_kept() -> None:
    top = [{"token": "token_id:3", "logprob": None}]
    drawn = read_logprobs({"content": [{"token": "token_id:3", "logprob": -1.0, "top_logprobs": top}]})
    with pytest.raises(ValueError, match="log-probabilities"):
        with_top(Completion("a", "stop"), drawn, 1)
