"""Numbers from a pooling model, with an engine that returns fixed ones; tests/test_filters_judge.py compares a real one."""

import asyncio
from collections.abc import AsyncIterator, Coroutine, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from schemas.engines import VllmEngine
from schemas.sample import Message
from thresher.errors import EngineError
from thresher.inputs.models import Model
from thresher.samplers import vllm_pooling
from thresher.samplers.vllm_pooling import TEXTS_AT_A_TIME, PoolingEngine


class FakeProcess:
    """A VllmProcess whose engine returns the number of tokens of each text."""

    def __init__(self) -> None:
        self.engine: Any = None
        self.calls: list[tuple[str, bool]] = []
        self.hangs = False

    def start_loop(self) -> None: ...

    def load(self) -> None: ...

    def start(self, **arguments: Any) -> Any:
        assert arguments == {"runner": "pooling"}
        self.engine = self
        return SimpleNamespace(
            model_config=SimpleNamespace(max_model_len=5, hf_config=SimpleNamespace(id2label={"1": "good", "0": "bad"}))
        )

    def run(self, coroutine: Coroutine[Any, Any, list[Any]]) -> list[Any]:
        return asyncio.run(coroutine)

    async def encode(self, prompt: Any, parameters: Any, request_id: str) -> AsyncIterator[Any]:
        import torch

        self.calls.append((parameters.task, parameters.use_activation))
        if self.hangs:
            await asyncio.sleep(1e6)
        if prompt["prompt_token_ids"] == []:
            raise ValueError("an empty prompt")
        yield SimpleNamespace(outputs=SimpleNamespace(data=torch.tensor([float(len(prompt["prompt_token_ids"])), 0.5])))

    def close(self) -> None:
        self.engine = None


class FakeTokeniser:
    def __init__(self, model: Model, prompt_format: str, engine: VllmEngine) -> None:
        assert prompt_format == "auto"

    def text(self, messages: tuple[Message, ...], *, to_continue: bool) -> str:
        assert not to_continue
        return messages[-1].content

    def prompt(self, text: str) -> list[int]:
        return self.whole_text(text)

    def whole_text(self, text: str) -> list[int]:
        return list(range(len(text.split())))


@pytest.fixture
def process(monkeypatch: pytest.MonkeyPatch) -> FakeProcess:
    fake = FakeProcess()
    monkeypatch.setattr(vllm_pooling, "VllmProcess", lambda spec, model, *, thread_name: fake)
    return fake


@pytest.fixture
def engine(process: FakeProcess, monkeypatch: pytest.MonkeyPatch) -> Iterator[PoolingEngine]:
    monkeypatch.setattr(vllm_pooling, "Tokeniser", FakeTokeniser)
    with PoolingEngine(VllmEngine(silent_s=0.3), Model("m", "m", None, None, None, None), prompt_format="auto") as opened:
        yield opened


def test_options_of_the_runner_are_reserved() -> None:
    with pytest.raises(EngineError, match=r"engine.options.convert: thresher sets this itself"):
        PoolingEngine(VllmEngine(options={"convert": "classify"}), Model("m", "m", None, None, None, None), prompt_format="auto")


def test_labels_are_in_the_order_of_the_outputs(engine: PoolingEngine) -> None:
    assert engine.labels == ("bad", "good")


def test_a_closed_engine_raises(engine: PoolingEngine) -> None:
    engine.close()
    with pytest.raises(EngineError, match="the engine was stopped"):
        engine.embeddings(["a"])


@pytest.mark.slow
def test_each_text_gets_its_numbers_or_the_reason_why_not(engine: PoolingEngine) -> None:
    outputs = engine.embeddings(["a b", "a b c d e f", "a"])

    assert [np.asarray(output).tolist() for output in outputs] == [
        [2.0, 0.5],
        "6 tokens do not fit the model's context of 5",
        [1.0, 0.5],
    ]


@pytest.mark.slow
@pytest.mark.parametrize(("activation", "used"), [(None, True), (True, True), (False, False)])
def test_scores_are_probabilities_unless_raw_ones_are_asked_for(
    engine: PoolingEngine, process: FakeProcess, activation: bool | None, used: bool
) -> None:
    """With a single output, raw is the default; here are two."""
    engine.scores([(Message("user", "a b"),)], activation=activation)

    assert process.calls == [("classify", used)]


@pytest.mark.slow
def test_many_texts_enter_in_portions_and_stay_in_order(engine: PoolingEngine) -> None:
    texts = ["a " * (1 + number % 4) for number in range(TEXTS_AT_A_TIME + 3)]
    outputs = engine.embeddings(texts)

    assert [float(np.asarray(output)[0]) for output in outputs] == [1 + number % 4 for number in range(len(texts))]


@pytest.mark.slow
def test_an_error_of_vllm_is_an_engine_error(engine: PoolingEngine) -> None:
    with pytest.raises(EngineError, match="vLLM: ValueError: an empty prompt"):
        engine.embeddings([""])


@pytest.mark.slow
def test_an_engine_that_finishes_nothing_is_ended(engine: PoolingEngine, process: FakeProcess) -> None:
    process.hangs = True
    with pytest.raises(EngineError, match=r"finished none of 2 texts for 0.3 s"):
        engine.embeddings(["a", "b"])
    with pytest.raises(EngineError, match="the engine was stopped"):
        engine.embeddings(["a"])
