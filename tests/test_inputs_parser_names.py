"""The table of vLLM's parsers: our own split by each name, and the errors for names that do not fit."""

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from filters.reasoning import Marking, _hint, opens_thinking, take_apart
from helpers.vllm_parsers import WRITTEN, cases
from schemas.engines import HttpEngine, ModelSpec, ReplayEngine, VllmEngine
from thresher.errors import RecipeError
from thresher.inputs import recipe_file
from thresher.inputs.parser_names import FORMATS, WHOLE, check_parsers, marking_by_name
from thresher.judging.check import check_recipe
from thresher.running import steps

BY_MARKS = [name for name, known in FORMATS.items() if not known.by_vllm and not known.channels]


def where(key: tuple[str | int, ...]) -> str:
    return f"x.yaml: {'.'.join(map(str, key))}"


@pytest.mark.parametrize("name", BY_MARKS)
def test_every_format_of_one_pair_is_split_alike(name: str) -> None:
    """Quoted marks stay text, a thought that was cut has no answer, and a mark of a tool call in a thought is text."""
    start, end = (WRITTEN.get(name) or FORMATS[name].pairs[0])[:2]
    texts = cases(name)
    apart = take_apart(pa.array(list(texts.values())), marking_by_name(name))
    found = dict(zip(texts, zip(apart.reasoning.to_pylist(), apart.answer.to_pylist(), strict=True), strict=True))
    before = (f"x{start}r", "a") if FORMATS[name].opened else (None, f"x{start}r{end}a")

    assert found == {
        "whole": ("r", "a"),
        "opened": ("r", "a"),
        "cut": ("r", None),
        "no marks": ("r", None) if FORMATS[name].opened else (None, "r"),
        "empty thought": ("", "a"),
        "quoted end": ("r", f"a '{end}' z"),
        "text before": before,
        "quoted pair": ("r", f"a '{start}q{end}' z"),
        "quoted start": (f"r '{start}' q", "a"),
        "blank lines": ("r", "a\n"),
        "no answer": ("r", ""),
        "mentions a call": ("r <tool_call> q", "a"),
    }


@pytest.mark.parametrize("name", [name for name, known in FORMATS.items() if known.pairs])
def test_the_prompt_shows_whether_it_opened_the_thinking(name: str) -> None:
    """As chat templates do: with a line after the mark, or closed at once where thinking is switched off."""
    start, end = WRITTEN.get(name, FORMATS[name].pairs[0])[:2]
    marking, prompt = marking_by_name(name), "<|user|>Why?<|assistant|>"

    assert [opens_thinking(prompt + rest, marking) for rest in (f"{start}\n", start, "", f"{start}\n\n{end}\n\n")] == [
        *(True, True),
        *(False, False),
    ]


def test_a_format_of_channels_alone_is_searched_in_columns() -> None:
    """Completions without a channel are not looked at one by one."""
    texts = pa.array(["Paris"] * 3)
    assert take_apart(texts, marking_by_name("openai_gptoss")).answer.equals(texts)
    assert "\\A" not in _hint(marking_by_name("openai_gptoss"))


def test_channels_are_read_by_our_own_code() -> None:
    texts = cases("openai_gptoss")
    wanted = ["whole", "cut", "no marks", "mentions a call"]
    apart = take_apart(pa.array([texts[case] for case in wanted]), marking_by_name("openai_gptoss"))

    assert apart.reasoning.to_pylist() == ["r", "r", None, "r <tool_call> q"]
    assert apart.answer.to_pylist() == ["a", None, "r", "a"]


def test_a_prompt_that_shows_no_thinking_overrules_the_name() -> None:
    """With qwen3 a completion without marks is all thinking, unless the prompt did not open it (enable_thinking: false)."""
    marking = marking_by_name("qwen3")
    apart = take_apart(pa.array(["Paris", "Paris"]), marking, [None, False])

    assert (marking.opened, apart.answer.to_pylist()) == (True, [None, "Paris"])


def test_other_formats_name_the_parser_of_vllm() -> None:
    """A name that a plugin registers is taken apart by the plugin; the marks only tell whether the prompt opens the thinking."""
    assert {name for name in FORMATS if marking_by_name(name).parser} == {*WHOLE, "ernie45", "granite", "hunyuan_a13b"}
    assert marking_by_name("mine", (("<t>", "</t>"),)) == Marking((("<t>", "</t>"),), channels=False, parser="mine")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (
            {"reasoning": "quen3"},
            "x.yaml: model.reasoning: vLLM has no reasoning parser 'quen3'; did you mean qwen3?; it has auto",
        ),
        ({"reasoning": "Auto"}, "did you mean auto?"),
        ({"tool_parser": "hermess"}, "x.yaml: model.tool_parser: vLLM has no tool parser 'hermess'; did you mean hermes?"),
        ({"tool_parser": "kimi_k3", "reasoning": "qwen3"}, "kimi_k3 also tells the reasoning apart"),
    ],
)
def test_an_unknown_parser_is_refused_with_the_nearest_name(spec: dict[str, str], message: str) -> None:
    with pytest.raises(RecipeError) as raised:
        check_parsers(ModelSpec.model_validate(spec), VllmEngine(), where)

    assert message in str(raised.value)


@pytest.mark.parametrize(
    "engine", [HttpEngine(kind="openai_http", base_urls=("http://x/v1",)), None], ids=["server", "own samples"]
)
def test_parsers_of_vllm_need_its_process(engine: HttpEngine | None) -> None:
    """Names of one pair of marks need no vLLM."""
    check_parsers(ModelSpec(reasoning="qwen3"), engine, where)
    with pytest.raises(RecipeError, match=r"granite is code of vLLM .* start a server with --reasoning-parser"):
        check_parsers(ModelSpec(reasoning="granite"), engine, where)
    with pytest.raises(RecipeError, match="the tool parser hermes reads only what vLLM draws in this process"):
        check_parsers(ModelSpec(tool_parser="hermes"), engine, where)


def test_known_names_pass() -> None:
    for name in FORMATS:
        check_parsers(ModelSpec(reasoning=name), VllmEngine(), where)
    check_parsers(ModelSpec(tool_parser="hermes", reasoning="qwen3"), VllmEngine(), where)
    check_parsers(ModelSpec(reasoning=None), ReplayEngine(kind="replay", path="x"), where)


@pytest.mark.slow
def test_check_and_run_refuse_an_unknown_parser(recipe: Callable[..., Path], tmp_path: Path) -> None:
    """Before anything is sampled, with the place in the recipe."""
    path = recipe(model={"reasoning": "deepseek_r2"})
    for command in (check_recipe, lambda loaded: steps.begin(loaded, tmp_path / "run")):
        with pytest.raises(RecipeError, match=r"recipe.yaml:\d+: model.reasoning: vLLM has no .* did you mean deepseek_r1"):
            command(recipe_file.load(path))
