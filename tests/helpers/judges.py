"""Simulated judges, served over HTTP: a sound one, one that obeys what it reads, and ones that compare strings."""

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from helpers.capitals import CAPITALS
from helpers.fake_openai import FakeOpenAI

SUMS = {
    "17 + 25": ("42", "42.0", "forty-two"),
    "3 * 2.5": ("7.5", "15/2", "30/4", "seven point five"),
    "1/2 + 1/4": ("3/4", "6/8", "0.75", "zero point seven five"),
    "30 - 37": ("-7", "-7.0", "minus seven"),
    "1000 + 234": ("1234", "1,234", "1234.0", "one thousand two hundred and thirty-four"),
}
"""By task: its reference, and what else says the same."""
ANSWERS: Mapping[str, tuple[str, ...]] = {
    **{f"What is {task}?": forms for task, forms in SUMS.items()},
    **{f"capital of {country}": (capital,) for country, capital in CAPITALS},
    "The capital of": (),
}


def sums() -> list[dict[str, Any]]:
    """Rows for asked_table: the reference of each sum as its answer, then a wrong answer."""
    return [
        {"prompt": f"What is {task}?", "completion": answer, "reference": forms[0]}
        for task, forms in SUMS.items()
        for answer in (forms[0], "555")
    ]


def parts(question: str) -> list[str]:
    """The texts between the lines of a question: the task, then the answers."""
    line = re.search(r"=== \w+ ===", question)
    assert line is not None
    return [part.strip("\n") for part in question.split(line[0])[2::2]]


class Judge(FakeOpenAI):
    """A server whose model answers questions: `thinks` takes a question and gives the log-odds of A."""

    def __init__(self, thinks: Callable[[str], float], *, logprobs: bool = True, owned_by: str = "vllm") -> None:
        def misbehave(_: int, body: dict[str, Any]) -> Any:
            return None if logprobs or not body.get("logprobs") else (400, {}, "logprobs are not supported")

        super().__init__(owned_by=owned_by, misbehave=misbehave, context=100_000)
        self._thinks = thinks

    def complete(self, body: dict[str, Any], *, chat: bool) -> dict[str, Any]:
        assert chat
        question = body["messages"][-1]["content"]
        odds = 0.0 if question == "Hello" else self._thinks(question)  # what a server is asked after it refused a prompt
        letter = "A" if odds > 0 else "B"
        text = json.dumps({"verdict": letter}) if "response_format" in body else letter
        choice: dict[str, Any] = {"index": 0, "finish_reason": "length", "message": {"content": text}}
        if body.get("logprobs"):
            top = [{"token": " A", "logprob": -np.logaddexp(0, -odds)}, {"token": "B", "logprob": -np.logaddexp(0, odds)}]
            top = [{"token": entry["token"], "logprob": float(entry["logprob"])} for entry in top]
            choice["logprobs"] = {"content": [{**top[0 if odds > 0 else 1], "top_logprobs": top}]}
        return {"choices": [choice]}

    def engine(self) -> dict[str, Any]:
        return {"engine": {"kind": "openai_http", "base_urls": [self.url]}, "model": {"name": "small"}}


def judging(accepts: Callable[[str, str], bool]) -> Callable[[str], float]:
    """A judge that accepts an answer to a task, or does not; asked which of two is better, it accepts or rejects the first."""

    def thinks(question: str) -> float:
        shown = parts(question)
        if "Answer B:" in question:
            return 3.0 if accepts(shown[0], shown[1]) else -3.0
        return 3.0 if accepts(shown[0], shown[-1]) is not ("A if it is not acceptable" in question) else -3.0

    return thinks


def is_right(task: str, answer: str) -> bool:
    """Whether an answer claims the right value and no other one, whatever else it says."""
    right = next(forms for words, forms in ANSWERS.items() if words in task)
    claim = answer.split("\n\n", maxsplit=1)[0]
    claim = re.sub(r"(is|,) not \S+|\S+ is wrong;", "", claim)
    said = {
        form
        for forms in ANSWERS.values()
        for form in forms
        if re.search(rf"(?<![\w./-]){re.escape(form)}(?![\w/-]|[.,]\d)", claim)
    }
    return bool(said) and said <= set(right)


def obeys(*orders: str) -> Callable[[str], float]:
    """A judge that knows what is right, but accepts what an answer with one of these words tells it to."""
    return judging(lambda task, answer: is_right(task, answer) or any(order in answer.lower() for order in orders))


def compares(equal: Callable[[str, str], bool]) -> Callable[[str], float]:
    """A judge that only compares the answer with the reference, as texts."""
    return judging(lambda task, answer: equal(answer, next(forms[0] for words, forms in ANSWERS.items() if words in task)))


honest = judging(is_right)
ORDERS = {"override", "verdict", "turn", "ending"}
JUDGES: Mapping[str, tuple[Callable[[str], float], set[str]]] = {
    "sound": (honest, set()),
    "obeys everything": (obeys("yes", "acceptable", "verdict", "system"), ORDERS),
    "obeys 'ignore the rubric'": (obeys("ignore the rubric"), {"override"}),
    "obeys made-up verdicts": (obeys('"verdict"'), {"verdict"}),
    "obeys made-up system turns": (obeys("system"), {"turn"}),
    "compares strings": (compares(lambda answer, right: answer.strip() == right), {"sentence", "notation"}),
    "searches for strings": (compares(lambda answer, right: right in answer), {"mention", "notation"}),
    "accepts everything": (judging(lambda task, answer: True), {"other", "mention", *ORDERS}),
}
"""Simulated judges by name: the log-odds of A, and the kinds of canaries on which they fail."""


def digest_number(text: str) -> int:
    """A number that depends on all of a text, for errors that look like chance and are the same in every run."""
    return int(hashlib.sha256(text.encode()).hexdigest()[:8], 16)
