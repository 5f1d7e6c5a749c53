"""Models that filters ask: opened once per settings, shared by threads, closed by their owner."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from filters.base import FilterError
from helpers.fake_openai import FakeOpenAI
from schemas.engines import HttpEngine, ModelSpec, ReplayEngine, VllmEngine
from schemas.sample import Message
from thresher.judging.model_engines import ModelEngines

MODEL = ModelSpec(name="small")
QUESTION = (Message("user", "A or B?"),)


class Answering(FakeOpenAI):
    """A server whose model always writes the same text."""

    def __init__(self, text: str) -> None:
        super().__init__(owned_by="x", context=1_000)
        self.text = text

    def complete(self, body: dict[str, Any], *, chat: bool) -> dict[str, Any]:
        return {"choices": [{"index": 0, "finish_reason": "stop", "message": {"content": self.text}}]}

    def engine(self) -> HttpEngine:
        return HttpEngine(kind="openai_http", base_urls=(self.url,))


@pytest.fixture
def engines() -> Iterator[ModelEngines]:
    with ModelEngines() as opened:
        yield opened


@pytest.mark.parametrize(
    ("text", "label"), [("A", "A"), (' "B". ', "B"), ('{"verdict": "B"}', "B"), ("**A**", "A"), ("A or B", None), ("", None)]
)
def test_the_label_is_read_from_the_text(engines: ModelEngines, text: str, label: str | None) -> None:
    """The text itself, or the value of its JSON object, without quotation marks and the like."""
    with Answering(text) as server:
        [choice] = engines.asker(server.engine(), MODEL).choose([QUESTION], ("A", "B"))

    assert (choice.label, choice.error) == (label, None)


def test_threads_share_an_engine(engines: ModelEngines) -> None:
    """Their questions are asked one batch after the other, and each gets its own answers."""
    with Answering("B") as server, ThreadPoolExecutor(8) as threads:
        askers = list(threads.map(lambda _: engines.asker(server.engine(), MODEL), range(8)))
        answers = list(threads.map(lambda asker: asker.choose([QUESTION] * 3, ("A", "B")), askers))

    assert [[choice.label for choice in choices] for choices in answers] == [["B"] * 3] * 8


def test_a_closed_engine_is_opened_again(engines: ModelEngines) -> None:
    with Answering("A") as server:
        for _ in range(2):
            [choice] = engines.asker(server.engine(), MODEL).choose([QUESTION], ("A", "B"))
            engines.close()

            assert choice.label == "A"


def test_an_engine_that_does_not_open_is_an_error(engines: ModelEngines, tmp_path: Path) -> None:
    engine = ReplayEngine(kind="replay", path=str(tmp_path / "absent.jsonl"))

    with pytest.raises(FilterError, match=r"the model that a filter asks does not open: .*absent\.jsonl"):
        engines.asker(engine, MODEL)
    (tmp_path / "absent.jsonl").write_text(json.dumps({"prompt": "A or B?", "completion": "A"}) + "\n")
    assert engines.asker(engine, MODEL) is not None


def test_a_reward_model_with_an_adapter_is_refused(engines: ModelEngines) -> None:
    """It would be ignored."""
    with pytest.raises(FilterError, match=r"model.adapter 'tuned': reward and embedding models take none; merge it into m"):
        engines.scorer(VllmEngine(), ModelSpec(name="m", adapter="tuned"))
    with pytest.raises(FilterError, match=r"model.adapter 'tuned': a model that reads texts takes none; merge it into m"):
        engines.reader(VllmEngine(), ModelSpec(name="m", adapter="tuned"))
