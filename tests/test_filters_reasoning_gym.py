"""reasoning_gym: the scorer of the item that the prompt was made from."""

from typing import Any

import pytest

from helpers.filter_tables import results, verdicts
from schemas.sample import to_json


def gym(name: str, completion: str, **changes: Any) -> dict[str, Any]:
    item = {"name": name, "config": {}, "seed": 7, "index": 1, **changes}
    return {"completion": completion, "metadata": to_json({"reasoning_gym": item})}


@pytest.mark.slow
def test_the_item_is_generated_again_and_scored() -> None:
    """From name, config, seed and index. Part of the score, which lenient scorers give, is not enough."""
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
        "keep", "keep", "wrong_answer", "wrong_answer", "keep", "unparsed", *["bad_reference"] * 4, "no_reference",
    ]  # fmt: skip
    assert "runs answers as code" in scored[6]["detail"]["why"]
    marked = results("reasoning_gym", {"after": "Answer:"}, gym("chain_sum", f"so Answer: {answer}"), gym("chain_sum", answer))
    assert marked == ["keep", "unparsed"]
