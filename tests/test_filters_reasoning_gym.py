"""reasoning_gym: the scorer of the item that the prompt was made from."""

from typing import Any

import pytest

from filters.reasoning_gym import is_own, shown, spoilt, stands_among_words
from helpers.filter_tables import results, verdicts
from schemas.sample import to_json


def gym(name: str, completion: str, **changes: Any) -> dict[str, Any]:
    item = {"name": name, "config": {}, "seed": 7, "index": 1, **changes}
    return {"completion": completion, "metadata": to_json({"reasoning_gym": item})}


@pytest.mark.slow
def test_the_item_is_generated_again_and_scored() -> None:
    """From name, config, seed and index. Part of the score, which lenient scorers give, is not enough; prose is not read."""
    reasoning_gym = pytest.importorskip("reasoning_gym")
    answer = reasoning_gym.create_dataset("chain_sum", seed=7, size=2)[1]["answer"]
    rows = [
        gym("chain_sum", answer),
        gym("chain_sum", f" {answer}\n"),
        gym("chain_sum", f"The answer is {answer}."),
        gym("chain_sum", str(int(answer) + 1)),
        gym("chain_sum", answer, seed=8, index=0),
        gym("chain_sum", ""),
        gym("countdown", "__import__('os')"),
        gym("acre", "x"),
        gym("chain_sun", "x"),
        gym("chain_sum", "x", config={"min_terms": -1}),
        {"completion": "x"},
    ]
    scored = verdicts("reasoning_gym", {}, *rows)

    assert [row["result"] for row in scored] == [
        "keep", "keep", "unparsed", "wrong_answer", "keep", "unparsed", *["bad_reference"] * 4, "no_reference",
    ]  # fmt: skip
    assert "runs answers as code" in scored[6]["detail"]["why"]
    marked = results("reasoning_gym", {"after": "Answer:"}, gym("chain_sum", f"so Answer: {answer}"), gym("chain_sum", answer))
    assert marked == ["keep", "unparsed"]


@pytest.mark.slow
@pytest.mark.parametrize("family", ["coin_flip", "complex_arithmetic", "gsm_symbolic", "number_sorting", "word_sorting"])
def test_a_scorer_that_takes_spoilt_answers_is_believed_of_the_items_own(family: str) -> None:
    """Each gives full marks to one of these wrong answers (findings/reasoning-gym-full-marks-for-wrong-answers.sh)."""
    reasoning_gym = pytest.importorskip("reasoning_gym")
    answer = reasoning_gym.create_dataset(family, seed=7, size=2)[1]["answer"]
    right = [answer, f"{answer}.", f"**{answer}**", f"\\boxed{{{answer}}}", f"<answer>{answer}</answer>"]

    assert set(results("reasoning_gym", {}, *(gym(family, text) for text in right))) == {"keep"}
    said = results("reasoning_gym", {}, *(gym(family, text) for text in spoilt(answer)))
    assert "keep" not in said and "unverifiable" in said


def test_spoilt_answers_are_other_answers() -> None:
    assert "-12" in spoilt("12") and "12.9" in spoilt("12") and "12 zebra" in spoilt("12")
    assert "Ann is not a knight" in spoilt("Ann is a knight")
    assert all(not is_own(text, gold) for gold in ("12", "0", "-3.5", "a, b", "[1, 2]") for text in spoilt(gold))


@pytest.mark.parametrize(
    ("answer", "gold", "own"),
    [("12.", "12", True), ("12.0", "12", True), ("A, B", "a, b", True), ("-12", "12", False), ("12 x", "12", False)],
)
def test_an_answer_is_the_items_own_as_a_text_or_a_number(answer: str, gold: str, own: bool) -> None:
    assert is_own(answer, gold) is own


def test_an_answer_is_shown_without_what_only_marks_it() -> None:
    assert "12" in shown("**12**.") and "12" in shown("So it is \\boxed{12}") and "12" in shown("<answer> 12 </answer>")
    assert shown("12") == ["12"]


@pytest.mark.parametrize(
    ("answer", "among"),
    [("The answer is 12.", True), ("[1, 12]", False), ("It is 112", False), ("It is 12.5", False), ("12", False)],
)
def test_the_gold_answer_among_words_is_no_wrong_answer(answer: str, among: bool) -> None:
    assert stands_among_words("12", answer) is among
