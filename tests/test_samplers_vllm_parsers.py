"""vLLM's own parsers on whole completions: compared with our split for each name, and what is kept that they would lose."""

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from filters.reasoning import take_apart
from helpers.vllm_parsers import cases, served, tokenizer, write_tokenizer
from schemas.engines import ModelSpec, VllmEngine
from thresher.errors import EngineError, RecipeError
from thresher.inputs.models import Model
from thresher.inputs.parser_names import FORMATS, TOOL_PARSERS, check_parsers, marking_by_name
from thresher.inputs.thinking import marking_of
from thresher.samplers.sampler import Completion, Drawn, Group, Parts
from thresher.samplers.vllm_parsers import VllmParsers

pytestmark = pytest.mark.slow

SWITCHES: dict[str, dict[str, Any]] = {
    "deepseek_v3": {"thinking": True},
    "poolside_v1": {"enable_thinking": True},
    "hy_v3": {"reasoning_effort": "high"},
}
"""Parsers that take nothing apart unless an argument of the template tells them to. The prompt tells our split."""
BY_MARKS = [name for name, known in FORMATS.items() if not known.by_vllm and not known.channels]
BY_VLLM = [name for name, known in FORMATS.items() if known.by_vllm and not name.startswith("cohere")]
"""cohere_command3 and 4 need the package cohere-melody."""
QUOTED = {"quoted end", "quoted pair", "quoted start"}
KEEP_QUOTED = {"deepseek_r1", "deepseek_v3", "holo2", "hy_v3", "hy_v4", "k2_horizon", "minimax_m3", "olmo3", "poolside_v1"}
"""Parsers of vLLM that keep quoted marks. The others leave quoted marks out, or take a quoted pair in the answer for thinking."""
LOSE_THE_ANSWER = {"glm45", "glm47", "granite_thinking_parser", "ling3", "mimo", "minicpmv", "nemotron_v3", "qwen3", "step3p5"}
"""Parsers of vLLM for which a thought ends where it mentions <tool_call>."""
SPLIT_A_LONE_END = {"minimax_m3", "mistral"}
"""Parsers of vLLM that take a thought whose start mark is missing for the answer."""
CUT_THOUGHT_IN_CONTENT = {"k2_horizon", "olmo3"}
PARSE_NOTHING = {"minimax_m2_append_think"}
KEEP_THE_START = {"step3"}


@pytest.fixture(scope="module")
def marks(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """A directory with a tokeniser of all marks."""
    return write_tokenizer(tmp_path_factory.mktemp("marks"))


def same(parts: tuple[str | None, str | None], case: str) -> tuple[str | None, str | None]:
    """Reasoning and answer without what both may do at their ends. A server gives no content where the answer is empty."""
    reasoning, answer = parts
    answer = "" if answer is None and case == "no answer" else answer
    return (reasoning or "").strip() or None, None if answer is None else answer.strip()


def differs(name: str) -> set[str]:
    """The cases in which our split differs from vLLM's, on purpose."""
    if name in PARSE_NOTHING:
        return set(cases(name))
    if name in KEEP_THE_START:
        return set(cases(name)) - {"opened", "no marks", "text before"}
    wanted = {"text before"}
    wanted |= set() if name in KEEP_QUOTED else QUOTED
    wanted |= {"mentions a call"} if name in LOSE_THE_ANSWER else set()
    wanted |= {"opened"} if name in SPLIT_A_LONE_END else set()
    return wanted | ({"cut"} if name in CUT_THOUGHT_IN_CONTENT else set())


@pytest.mark.parametrize("name", BY_MARKS)
def test_our_split_differs_from_vllm_only_on_purpose(name: str, marks: Model) -> None:
    """Every other completion comes apart as vLLM's server does it."""
    texts = cases(name)
    apart = take_apart(pa.array(list(texts.values())), marking_by_name(name))
    ours = dict(zip(texts, zip(apart.reasoning.to_pylist(), apart.answer.to_pylist(), strict=True), strict=True))
    if name in SWITCHES:  # the prompt opens the thinking there
        opened = take_apart(pa.array([texts["no marks"]]), marking_by_name(name), [True])
        ours["no marks"] = (opened.reasoning[0].as_py(), opened.answer[0].as_py())
    switch = SWITCHES.get(name, {})
    theirs = {case: served(name, text, marks.path, **switch) for case, text in texts.items()}

    assert {case for case in texts if same(ours[case], case) != same(theirs[case], case)} == differs(name)


def test_the_table_has_every_parser_of_vllm() -> None:
    from vllm.reasoning import ReasoningParserManager
    from vllm.tool_parsers import ToolParserManager

    assert set(ReasoningParserManager.list_registered()) == set(FORMATS)
    assert set(ToolParserManager.list_registered()) == set(TOOL_PARSERS)


@pytest.mark.parametrize("name", [*BY_MARKS, *BY_VLLM])
def test_the_table_says_what_a_server_returns_of_a_cut_thought(name: str, marks: Model) -> None:
    """As docs/models.md shows it."""
    cut = cases(name)["cut"]
    _, content = served(name, cut, marks.path)
    words = {None: "null", "r": "the thought", cut: "the whole text", f"<think>{cut}": "the whole text"}

    assert words[content] == FORMATS[name].when_cut
    assert (served(name, "r", marks.path)[1] is None) == FORMATS[name].opened


def test_harmony_is_read_as_vllm_reads_it(marks: Model) -> None:
    """By our own code, which needs no vocabulary from the network."""
    from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
    from vllm.entrypoints.openai.parser import harmony_utils
    from vllm.parser.parser_manager import ParserManager

    try:
        encoding = harmony_utils.get_encoding()
    except Exception as error:  # noqa: BLE001 - openai_harmony raises its own kinds
        pytest.skip(f"the vocabulary of harmony is not on this machine: {error}")

    class Harmony:
        def decode(self, ids: list[int], **_: Any) -> str:
            return str(encoding.decode(ids))

        def get_vocab(self) -> dict[str, int]:
            return {}

    texts = {case: text for case, text in cases("openai_gptoss").items() if case in {"whole", "cut", "no marks", "no answer"}}
    apart = take_apart(pa.array(list(texts.values())), marking_by_name("openai_gptoss"))
    request = ChatCompletionRequest(messages=[{"role": "user", "content": "q"}], model="m")
    parser_class: Any = ParserManager.get_parser(reasoning_parser_name="openai_gptoss", is_harmony=True)
    for row, (case, text) in enumerate(texts.items()):
        parser = parser_class(Harmony())  # all that it asks of a tokeniser
        reasoning, content, _ = parser.parse(text, request, model_output_token_ids=encoding.encode(text, allowed_special="all"))
        ours = (apart.reasoning[row].as_py(), apart.answer[row].as_py())
        assert same(ours, case) == same((reasoning, content), case)


# -- completions that vLLM takes apart -------------------------------------------------------------------------------------


def parts_of(
    parsers: VllmParsers, model: Model, text: str, *, finish: str = "stop", opened: bool | None = None, tools: Any = None
) -> Parts | None:
    """The parts of one completion."""
    ids = np.asarray(tokenizer(model.path).encode(text, add_special_tokens=False), np.int32)
    spelt = np.array(
        [len(tokenizer(model.path).decode([token]).encode()) for token in range(len(tokenizer(model.path)))], np.int32
    )
    group = Group(1, (), 1, {}, tools=None if tools is None else json.dumps(tools))
    drawn = Drawn(1, (Completion(text, finish, token_ids=ids),), opened=opened)
    return parsers.apart(drawn, group, spelt).completions[0].parts


@pytest.mark.parametrize("name", BY_VLLM)
def test_what_vllm_takes_apart_loses_no_answer(name: str, marks: Model) -> None:
    """A thought that was cut has no answer, whatever the parser returns; a completion without a thought is all answer."""
    parsers, texts = VllmParsers(marks, marking_by_name(name), None), cases(name)

    def parts(case: str, **more: Any) -> tuple[str | None, str | None]:
        found = parts_of(parsers, marks, texts[case], **more)
        assert found is not None
        assert found.parsed_by == name
        return found.reasoning, found.answer

    assert parts("whole") == ("r", "a")
    assert parts("blank lines") == ("r", "a") or parts("blank lines") == ("r", "a\n")
    assert parts("cut", finish="length") == ("r", None)
    assert parts("no marks", opened=True) == ("r", None)
    assert parts("no marks", opened=False) == (None, "r")
    assert parts("no answer") == ("r", "")
    assert parts("mentions a call") == ("r <tool_call> q", "a")


def test_the_parser_hf_sees_the_prompt(marks: Model) -> None:
    """Its template tells whether the prompt opened the thinking; the marks of other models are not known to us."""
    parsers = VllmParsers(marks, marking_by_name("hf"), None)
    for prompt, reasoning, answer in (("<assistant><think>", "r", "a"), ("<assistant>", None, "r</think>a")):
        ids = np.asarray(tokenizer(marks.path).encode(prompt, add_special_tokens=False), np.int32)
        drawn = Drawn(1, (Completion("r</think>a", "stop"),), prompt_ids=ids)
        parts = parsers.apart(drawn, Group(1, (), 1, {}), None).completions[0].parts

        assert parts is not None
        assert (parts.reasoning, parts.answer) == (reasoning, answer)


def test_a_parser_of_a_plugin_may_be_named(marks: Model) -> None:
    """One that vLLM's registry knows and our table does not."""
    from vllm.reasoning import ReasoningParserManager

    spec = ModelSpec(reasoning="mine")
    with pytest.raises(RecipeError, match="vLLM has no reasoning parser 'mine'"):
        check_parsers(spec, VllmEngine(), str)
    known = ReasoningParserManager.get_reasoning_parser("deepseek_r1")
    ReasoningParserManager.register_module("mine", module=type("Mine", (known,), {}))
    try:
        check_parsers(spec, VllmEngine(), str)
        parsers = VllmParsers(marks, marking_of(spec, ""), None)
        parts = parts_of(parsers, marks, "<think>r</think>a")
    finally:
        ReasoningParserManager.reasoning_parsers.pop("mine")

    assert parts is not None
    assert (parts.parsed_by, parts.reasoning, parts.answer, parts.reasoning_tokens) == ("mine", "r", "a", 3)


def test_tokens_of_the_reasoning_are_counted(marks: Model) -> None:
    """Up to the end of its mark: each mark is one token here."""
    parsers = VllmParsers(marks, marking_by_name("ernie45"), None)
    found = [parts_of(parsers, marks, text) for text in ("<think>abc</think>\n\nde", "abc", "<think>abc")]

    assert [None if part is None else part.reasoning_tokens for part in found] == [5, 3, 4]


# -- tool calls ------------------------------------------------------------------------------------------------------------

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "add",
            "parameters": {"type": "object", "properties": {"x": {"type": "integer"}, "word": {"type": "string"}}},
        },
    }
]
CALL = {"name": "add", "arguments": {"x": 1, "word": "a"}}
XML = "<tool_call>\n<function=add>\n<parameter=x>\n1\n</parameter>\n<parameter=word>\na\n</parameter>\n</function>\n</tool_call>"
WRITTEN_CALLS = {
    "hermes": f"Hi <tool_call>\n{json.dumps(CALL)}\n</tool_call>",
    "qwen3_json": f"Hi <tool_call>\n{json.dumps(CALL)}\n</tool_call>",
    "pythonic": '[add(x=1, word="a")]',
    "llama3_json": '{"name": "add", "parameters": {"x": 1, "word": "a"}}',
    "qwen3_xml": f"Hi {XML}",
    "qwen3_coder": f"Hi {XML}",
    "mistral": 'Hi [TOOL_CALLS]add[ARGS]{"x": 1, "word": "a"}',
}


def calls_of(parts: Parts | None) -> Any:
    return None if parts is None or parts.tool_calls is None else json.loads(parts.tool_calls)


@pytest.mark.parametrize("name", WRITTEN_CALLS)
def test_calls_are_found_in_the_answer(name: str, marks: Model) -> None:
    """With names and typed arguments; the reasoning stays, and a thought that mentions a call is none."""
    parsers = VllmParsers(marks, marking_by_name("qwen3"), name)
    text = WRITTEN_CALLS[name]
    parts = parts_of(parsers, marks, f"<think>I could {text}</think>\n\n{text}", tools=TOOLS)

    assert parts is not None
    assert (parts.parsed_by, parts.reasoning, calls_of(parts)) == (name, f"I could {text}", [CALL])
    assert parts.answer is not None
    assert parts.answer.strip() == ("Hi" if text.startswith("Hi") else "")
    assert parts.reasoning_tokens == len(tokenizer(marks.path).encode(f"<think>I could {text}</think>", add_special_tokens=False))
    assert parts_of(parsers, marks, f"<think>I could {text}</think>\n\nParis", tools=TOOLS) is None
    assert parts_of(parsers, marks, f"<think>I could {text}", tools=TOOLS) is None


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("qwen3_xml", "Hi <tool_call>\n<function=add>\n<parameter=x>\n1"),
        ("mistral", 'Hi [TOOL_CALLS]add[ARGS]{"x": '),
        ("hermes", 'Hi <tool_call>{"name": "add", "arguments": {"x": 1}}</tool_call> and'),
    ],
)
def test_an_answer_that_was_cut_calls_nothing(name: str, text: str, marks: Model) -> None:
    """vLLM's parsers return what was cut as a whole call, qwen3_xml even as add({})."""
    parsers = VllmParsers(marks, None, name)

    assert parts_of(parsers, marks, text, finish="length", tools=TOOLS) is None
    assert calls_of(parts_of(parsers, marks, text, finish="stop", tools=TOOLS)) is not None


def test_arguments_that_are_no_object_stay_text(marks: Model) -> None:
    """Mistral's parser returns what it finds; an object that was encoded twice is read."""
    mistral, hermes = VllmParsers(marks, None, "mistral"), VllmParsers(marks, None, "hermes")
    broken = parts_of(mistral, marks, '[TOOL_CALLS]add[ARGS]{"x": ', tools=TOOLS)
    twice = parts_of(hermes, marks, '<tool_call>{"name": "add", "arguments": "{\\"x\\": 1}"}</tool_call>', tools=TOOLS)
    half = parts_of(hermes, marks, '<tool_call>{"name": "add", "arguments": {"x": "\\ud800"}}</tool_call>', tools=TOOLS)

    assert calls_of(broken) == [{"name": "add", "arguments": '{"x":'}]
    assert calls_of(twice) == [{"name": "add", "arguments": {"x": 1}}]
    assert calls_of(half) == [{"name": "add", "arguments": {"x": "\ud800"}}]
    assert half is not None
    assert pa.array([half.tool_calls]).type == pa.string()


def test_an_answer_without_a_call_keeps_every_character(marks: Model) -> None:
    """vLLM's parser of qwen3 would leave out quoted marks and what is not its own format."""
    parsers = VllmParsers(marks, None, "qwen3_xml")
    for text in ("Say '</think>' twice", f"Hi <tool_call>{json.dumps(CALL)}</tool_call>", ""):
        assert parts_of(parsers, marks, text, tools=TOOLS) is None


def test_a_call_that_the_model_spoiled_is_text(marks: Model, capfd: pytest.CaptureFixture[str]) -> None:
    """vLLM would log a traceback for each."""
    parsers = VllmParsers(marks, None, "hermes")
    assert parts_of(parsers, marks, "<tool_call>{'name': 'add'}</tool_call>", tools=TOOLS) is None

    assert not logging.getLogger("vllm.tool_parsers.hermes_tool_parser").isEnabledFor(logging.ERROR)
    assert "Traceback" not in "".join(capfd.readouterr())


def test_a_parser_that_fails_costs_only_that_sample(marks: Model, caplog: pytest.LogCaptureFixture) -> None:
    """The sample has its answer and no calls, and the first failure is logged."""
    parsers = VllmParsers(marks, None, "hermes")
    broken = Group(1, (), 2, {}, tools=json.dumps([{"type": "function", "function": {}}]))
    drawn = Drawn(1, (Completion(WRITTEN_CALLS["hermes"], "stop"),) * 2)
    with caplog.at_level(logging.WARNING):
        assert [completion.parts for completion in parsers.apart(drawn, broken, None).completions] == [None, None]

    assert [record.message[:39] for record in caplog.records] == ["the parser hermes of vLLM failed on 'Hi"]
    assert calls_of(parts_of(parsers, marks, WRITTEN_CALLS["hermes"], tools=TOOLS)) == [CALL]


def test_harmony_calls_are_read_from_the_channels() -> None:
    """No vocabulary is needed, and a call is an answer without text."""
    parsers = VllmParsers(Model("m", "", None, None, None, None), marking_by_name("openai_gptoss"), "openai")
    text = (
        "<|channel|>analysis<|message|>I need to=functions.add<|end|><|start|>assistant<|channel|>commentary to=functions.add "
        '<|constrain|>json<|message|>{"x": 1, "word": "a"}'
    )
    drawn = Drawn(1, (Completion(text, "stop"), Completion(text, "length")))
    whole, cut = parsers.apart(drawn, Group(1, (), 2, {}), None).completions

    assert whole.parts == Parts("openai", "I need to=functions.add", "", json.dumps([CALL]), None)
    assert cut.parts is None


S = "<|sep|>"
KIMI_CALL = (
    f'<|open|>tools{S}<|open|>call tool="add" index="1"{S}<|open|>argument key="x" type="number"{S}1<|close|>argument{S}'
    f'<|open|>argument key="word" type="string"{S}a<|close|>argument{S}<|close|>call{S}<|close|>tools{S}'
)
IN_CHANNELS = {
    "kimi_k3": f"r<|close|>think{S}<|open|>response{S}Hi<|close|>response{S}{KIMI_CALL}",
    "inkling": (
        "<|content_thinking|>r<|end_message|><|message_model|><|content_text|>Hi<|end_message|><|message_model|>"
        '<|content_invoke_tool_json|>{"name": "add", "args": {"x": 1, "word": "a"}}<|end_message|>'
    ),
}


@pytest.mark.parametrize("name", IN_CHANNELS)
@pytest.mark.parametrize("tools", [TOOLS, None], ids=["tools", "no tools"])
def test_calls_in_channels_need_one_name_only(name: str, tools: Any, marks: Model) -> None:
    """`tool_parser: kimi_k3` with `reasoning: auto` takes the reasoning apart too. To a prompt without tools that parser finds no
    calls."""
    marking = marking_of(ModelSpec(tool_parser=name), marks.path)
    assert marking is not None
    assert marking.parser == name
    expected = None if tools is None and name == "kimi_k3" else [CALL]
    parts = parts_of(VllmParsers(marks, marking, name), marks, IN_CHANNELS[name], tools=tools, opened=name == "kimi_k3")

    assert parts is not None
    assert (parts.parsed_by, parts.reasoning, parts.answer, calls_of(parts)) == (name, "r", "Hi", expected)


def test_one_pass_finds_reasoning_and_calls(marks: Model) -> None:
    """Where vLLM takes the reasoning apart too; `parsed_by` has both names."""
    parsers = VllmParsers(marks, marking_by_name("granite"), "hermes")
    text = f"Here is my thought process: I could {WRITTEN_CALLS['hermes']} Here is my response: {WRITTEN_CALLS['hermes']}"
    parts = parts_of(parsers, marks, text, tools=TOOLS)

    assert parts is not None
    assert (parts.parsed_by, calls_of(parts)) == ("granite+hermes", [CALL])
    cut = parts_of(parsers, marks, text, tools=TOOLS, finish="length")
    assert cut is not None
    assert (cut.tool_calls, WRITTEN_CALLS["hermes"] in (cut.answer or "")) == (None, True)


def test_parsers_that_do_not_fit_the_tokeniser_are_refused(tmp_path: Path) -> None:
    """Before the engine is started."""
    with pytest.raises(EngineError, match=r"model.reasoning, model.tool_parser: hf: .*response_template"):
        VllmParsers(write_tokenizer(tmp_path, template=False), marking_by_name("hf"), None)
