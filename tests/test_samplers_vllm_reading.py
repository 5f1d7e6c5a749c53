"""Surprisal of the tokens of texts, with an engine that returns fixed numbers; and a real one beside transformers."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from schemas.engines import VllmEngine
from thresher.errors import EngineError
from thresher.inputs.models import Model, embedded_model
from thresher.samplers import vllm_reading
from thresher.samplers.token_watch import StalledError
from thresher.samplers.vllm_reading import ReadingEngine

MODEL = Model("m", "", None, None, None, None)


class FakeProcess:
    """A VllmProcess whose engine finds token n harder by n nats, and token 1 the likeliest everywhere."""

    def __init__(self) -> None:
        self.engine: Any = None
        self.prompts: list[list[int]] = []
        self.hangs = False

    def start_loop(self) -> None: ...

    def load(self) -> None: ...

    def start(self, **arguments: Any) -> Any:
        self.engine = self
        return SimpleNamespace(model_config=SimpleNamespace(max_model_len=6))

    def run(self, coroutine: Coroutine[Any, Any, list[Any]]) -> list[Any]:
        return asyncio.run(coroutine)

    async def generate(self, prompt: Any, parameters: Any, request_id: str) -> AsyncIterator[Any]:
        assert (parameters.prompt_logprobs, parameters.flat_logprobs) == (1, True)
        if self.hangs:
            await asyncio.sleep(1e6)
        tokens = prompt["prompt_token_ids"]
        self.prompts.append(tokens)
        if 5 in tokens:
            raise ValueError("five")
        # The first token of a prompt has no numbers, and the likeliest token is there once if it is the token itself.
        sizes = [0, *(1 if token == 1 else 2 for token in tokens[1:])]
        ends = np.cumsum(sizes).tolist()
        numbers = [number for token in tokens[1:] for number in ([1] if token == 1 else [token, 1])]
        yield SimpleNamespace(
            prompt_logprobs=SimpleNamespace(
                start_indices=[0, *ends[:-1]],
                end_indices=ends,
                token_ids=numbers,
                logprobs=[-0.5 if number == 1 else -float(number) for number in numbers],
            )
        )

    def close(self) -> None:
        self.engine = None


class FakeTokeniser:
    """Each digit is a token, and only token 1 continues a word."""

    def __init__(self, model: Model, prompt_format: str, engine: VllmEngine) -> None:
        assert prompt_format == "text"

    def completion(self, text: str) -> list[int]:
        assert text == "\n"
        return [0]

    def placed(self, text: str) -> tuple[list[int], np.ndarray]:
        return [int(digit) for digit in text], np.arange(1, len(text) + 1, dtype=np.int32)

    def continuing(self) -> np.ndarray:
        return np.array([False, True, *[False] * 8])


@pytest.fixture
def process(monkeypatch: pytest.MonkeyPatch) -> FakeProcess:
    fake = FakeProcess()
    monkeypatch.setattr(vllm_reading, "VllmProcess", lambda spec, model, thread_name: fake)
    monkeypatch.setattr(vllm_reading, "Tokeniser", FakeTokeniser)
    return fake


def test_each_token_has_its_surprisal_the_best_and_its_end(process: FakeProcess) -> None:
    """After a line break, which is not counted; an empty text is not given to the engine, and a long one has a reason."""
    with ReadingEngine(VllmEngine(), MODEL) as engine:
        read, empty, long = engine.readings(["213", "", "22222"])

    assert not isinstance(read, str)
    assert not isinstance(empty, str)
    assert read.surprisal.tolist() == [2.0, 0.5, 3.0]
    assert read.best.tolist() == [0.5, 0.5, 0.5]
    assert read.continues.tolist() == [True] * 3
    assert read.ends.tolist() == [1, 2, 3]
    assert len(empty.ends) == 0
    assert long == "5 tokens do not fit the model's context of 6"
    assert process.prompts == [[0, 2, 1, 3]]


def test_a_failing_silent_or_stopped_engine_is_an_error(process: FakeProcess) -> None:
    """Named by what vLLM says, or by how long it said nothing."""
    with ReadingEngine(VllmEngine(silent_s=0.05), MODEL) as engine:
        with pytest.raises(EngineError, match="vLLM: ValueError: five"):
            engine.readings(["5"])
        process.hangs = True
        with pytest.raises(StalledError, match=r"the engine finished none of 1 texts for 0.05 s"):
            engine.readings(["2"])
        with pytest.raises(EngineError, match="the engine was stopped"):
            engine.readings(["2"])


@pytest.mark.slow
def test_a_real_engine_reads_as_transformers_does() -> None:
    """The embedded model in float32: surprisal of each token to a hundredth of a nat."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    texts = ["Put anot is for the people who live here.", "Tyger Tyger, burning bright,\nIn the forests of the night"]
    model = embedded_model()
    with ReadingEngine(VllmEngine(dtype="float32", max_model_len=256, enforce_eager=True, kv_cache_gib=1), model) as engine:
        readings = engine.readings(texts)
    tokenizer: Any = AutoTokenizer.from_pretrained(model.path)
    network: Any = AutoModelForCausalLM.from_pretrained(model.path, dtype=torch.float32)
    for text, reading in zip(texts, readings, strict=True):
        assert not isinstance(reading, str)
        tokens = tokenizer.encode("\n", add_special_tokens=False) + tokenizer.encode(text, add_special_tokens=False)
        with torch.no_grad():
            logprobs = network(torch.tensor([tokens])).logits[0, :-1].log_softmax(-1)
        expected = -logprobs[range(len(tokens) - 1), tokens[1:]].numpy()
        assert np.allclose(reading.surprisal, expected, atol=0.01)
        assert np.allclose(reading.best, -logprobs.max(-1).values.numpy(), atol=0.01)
        assert reading.ends[-1] == len(text)
