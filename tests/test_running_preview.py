"""A preview shows samples of the first prompts taken apart and judged, from each kind of engine."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from helpers.fake_openai import FakeOpenAI
from schemas.sample import to_json
from thresher.errors import RecipeError
from thresher.inputs import recipe_file
from thresher.running.preview import Previewed, PreviewedSample, preview

Write = Callable[..., Path]

SOURCE = {"kind": "jsonl", "path": "prompts.jsonl"}
TWO_FAMILIES = [
    {"family": "capital", "source": SOURCE, "template": "Capital of {{ country }}?"},
    {"family": "spelt", "source": SOURCE, "template": "Spell {{ country }}."},
]


def previewed(path: Path, *overrides: str, **wanted: Any) -> Previewed:
    return preview(recipe_file.load(str(path), list(overrides)), **wanted)


def lines(shown: Previewed) -> list[str]:
    return [line.text for line in shown.lines()]


def answers(folder: Path, **rows: list[tuple[str, str]]) -> None:
    texts = {"capital": "Capital of France?", "spelt": "Spell France."}
    (folder / "answers.jsonl").write_text(
        "".join(
            json.dumps({"prompt": texts[name], "completion": text, "finish_reason": reason}) + "\n"
            for name, several in rows.items()
            for text, reason in several
        )
    )


def test_samples_are_taken_apart_and_judged_by_every_filter(recipe: Write, tmp_path: Path) -> None:
    """Also by those behind the filter that drops a sample. Reasoning is marked, so that a terminal can dim it."""
    path = recipe()
    thinks = "<think>\n" + "\n".join(f"thought {number}" for number in range(20)) + "\n</think>\n\nLyon"
    answers(tmp_path, capital=[(thinks, "stop"), ("<think>\nFrance has", "length")])

    shown = previewed(path, samples=2)

    first, second = shown.samples
    assert (first.answer, first.kind, first.failed_filter, first.reason) == ("Lyon", "miss", "exact_answer", "wrong_answer")
    assert (second.answer, second.reasoning, second.failed_filter) == (None, "France has", "finished")
    assert [verdict.filter for verdict in second.verdicts] == ["finished", "exact_answer"]
    assert not shown.failed
    text = lines(shown)
    assert text[:5] == [
        "capital",
        "  user: Capital of France?",
        '  reference: "Paris"',
        "capital, sample 1: ended by stop",
        "  reasoning:",
    ]
    assert text[16:] == [
        "  | thought 11",
        "  ... 8 lines more",
        "  answer:",
        "  | Lyon",
        "  finished: keep",
        "  exact_answer: drop wrong_answer",
        "  = dropped by exact_answer: wrong_answer (miss)",
        "capital, sample 2: ended by length",
        "  reasoning:",
        "  | France has",
        "  no answer: the completion ended inside its reasoning",
        "  finished: drop cut_while_thinking",
        "  exact_answer: undecided cut_while_thinking",
        "  = dropped by finished: cut_while_thinking",
        text[-1],
    ]
    assert text[-1].startswith("2 samples, 0 kept, drawn in ")
    assert next(line.text for line in shown.lines() if line.is_reasoning) == "  reasoning:"
    assert sum(line.is_reasoning for line in shown.lines()) == 1 + 13 + 2


@pytest.mark.slow
def test_each_family_is_shown_or_one(recipe: Write, tmp_path: Path) -> None:
    path = recipe(prompts=TWO_FAMILIES)
    answers(tmp_path, capital=[("Paris", "stop")], spelt=[("F-r-a-n-c-e", "stop")])

    assert [sample.family for sample in previewed(path, samples=1).samples] == ["capital", "spelt"]
    one = previewed(path, samples=2, family="spelt").samples
    assert [(sample.family, sample.index, sample.completion) for sample in one] == [
        ("spelt", 0, "F-r-a-n-c-e"),
        ("spelt", 1, "F-r-a-n-c-e"),
    ]
    with pytest.raises(RecipeError, match="--family: no family 'spel'; did you mean spelt"):
        previewed(path, family="spel")


def test_a_server_draws_with_tokens(recipe: Write) -> None:
    with FakeOpenAI() as server:
        path = recipe(model={"name": "small"}, engine={"kind": "openai_http", "base_urls": [server.url]})
        shown = previewed(path, samples=3)
        drawn = [body["n"] for body in server.bodies]

    assert sum(drawn) == 3
    assert all(sample.tokens and sample.temperature == 1.0 for sample in shown.samples)
    assert lines(shown)[3] == f"capital, sample 1: {shown.samples[0].tokens} tokens, ended by {shown.samples[0].finish_reason}"


def test_temperatures_are_shown_apart(recipe: Write, tmp_path: Path) -> None:
    path = recipe(sampling={"samples_per_prompt": 2, "max_tokens": 16, "temperature": [1.0, 0.5]})

    shown = previewed(path, samples=1)

    assert [sample.temperature for sample in shown.samples] == [0.5, 1.0]
    assert "capital, sample 1 at temperature 0.5: ended by stop" in lines(shown)
    assert "capital, sample 1: ended by stop" in lines(shown)


@pytest.mark.slow
def test_a_sample_that_could_not_be_drawn_is_an_error(recipe: Write) -> None:
    """A server that fails on one prompt, and on no other."""
    fails = lambda number, body: 500 if "France" in body["messages"][-1]["content"] else None  # noqa: E731
    with FakeOpenAI(misbehave=fails) as server:
        path = recipe(model={"name": "small"}, engine={"kind": "openai_http", "base_urls": [server.url]})
        shown = previewed(path, samples=1)

    assert shown.failed
    assert lines(shown)[3] == "capital, sample 1: not drawn"
    assert lines(shown)[4].startswith("  error: 127.0.0.1:")


def test_tool_calls_are_shown() -> None:
    call = {"name": "weather", "arguments": {"city": "Zürich"}}
    sample = PreviewedSample(
        "f", "p", (), None, None, 1.0, 0, "", "hm", "", to_json([call]), 9, 4, "stop", None, (), "keep", "hit", "", None
    )

    text = [line.text for line in sample.lines()]
    assert text[1] == "  reasoning (4 tokens):"
    assert '  tool call: weather {"city": "Zürich"}' in text


@pytest.mark.slow
@pytest.mark.usefixtures("warm_engines")
def test_vllm_draws_and_nothing_is_left(recipe: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("vllm")
    monkeypatch.chdir(tmp_path)
    engine = {"kind": "vllm", "max_model_len": 512, "kv_cache_gib": 1, "enforce_eager": True}

    shown = previewed(recipe(engine=engine), samples=3)

    assert [sample.index for sample in shown.samples] == [0, 1, 2]
    assert all(sample.tokens and sample.completion and sample.finish_reason for sample in shown.samples)
    assert [verdict.filter for verdict in shown.samples[0].verdicts][:2] == ["finished", "exact_answer"]
    assert shown.start_s > 1
    assert not (tmp_path / "data").exists()
