"""The parsers of vLLM by name: how each reasoning parser tells thinking from the answer, and which tool parsers there are.

Most reasoning parsers know one pair of marks. Their completions are taken apart by our own columnar code, which costs less and
loses no answer whose thinking mentions a mark of a tool call. The others (`by_vllm`) write channels, phrases or wrapped answers;
vLLM's own parser takes those apart, in the process that holds the engine.

The table is of vLLM 0.32; tests/test_samplers_vllm_parsers.py runs each parser of vLLM against it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from filters.reasoning import USUAL_MARKS, Marking, Pair
from schemas.engines import Engine, ModelSpec, VllmEngine
from schemas.suggest import did_you_mean
from thresher.errors import RecipeError

WhenCut = Literal["null", "the thought", "the whole text"]

THINK: Pair = ("<think>", "</think>")


@dataclass(frozen=True)
class Format:
    """How the completions of the models of one reasoning parser are taken apart."""

    pairs: tuple[Pair, ...] = (THINK,)
    """Pairs of marks; of a format `by_vllm`, those that tell whether a completion ended inside its thinking."""
    opened: bool = False
    """Whether the prompt opens the thinking, so that a completion without marks is all thinking, unless the prompt shows
    otherwise."""
    channels: bool = False
    """Whether the format is gpt-oss's ("harmony")."""
    by_vllm: bool = False
    """Whether vLLM's own parser takes the completions apart."""
    when_cut: WhenCut = "null"
    """What vLLM's server returns as `content` of a completion that ended inside its thinking."""


_MARKS, _OPENED = Format(), Format(opened=True)

FORMATS: dict[str, Format] = {
    "cohere_command3": Format((("<|START_THINKING|>", "<|END_THINKING|>"),), by_vllm=True),
    "cohere_command4": Format((("<|START_THINKING|>", "<|END_THINKING|>"),), opened=True, by_vllm=True),
    "deepseek_r1": _OPENED,
    "deepseek_v3": Format(when_cut="the whole text"),
    "deepseek_v4": _OPENED,
    "deepseek_v41": _OPENED,
    "ernie45": Format(opened=True, by_vllm=True),
    "gemma4": Format((("<|channel>thought", "<channel|>"), ("<|channel>", "<channel|>"))),
    "glm45": _OPENED,
    "glm47": _OPENED,
    "granite": Format(
        (
            ("Here is my thought process:", "Here is my response:"),
            ("Here is my thought process:", "Here's my response:"),
            ("Here's my thought process:", "Here's my response:"),
            ("Here's my thought process:", "Here is my response:"),
        ),
        by_vllm=True,
        when_cut="the whole text",
    ),
    "granite_thinking_parser": _OPENED,
    "hf": Format(by_vllm=True),
    "holo2": _OPENED,
    "hunyuan_a13b": Format(by_vllm=True, when_cut="the whole text"),
    "hy_v3": Format(when_cut="the whole text"),
    "hy_v4": _OPENED,
    "inkling": Format((("<|content_thinking|>", "<|end_message|>"),), by_vllm=True),
    "k2_horizon": Format(
        tuple((f"<ifm|{level}>", f"</ifm|{level}>") for level in ("think", "think_fast", "think_faster")), when_cut="the thought"
    ),
    "kimi_k2": _OPENED,
    "kimi_k3": Format((("<|open|>think<|sep|>", "<|close|>think<|sep|>"),), opened=True, by_vllm=True),
    "ling3": _OPENED,
    "mimo": _OPENED,
    "minicpmv": _OPENED,
    "minimax_m2": _OPENED,
    "minimax_m2_append_think": Format(when_cut="the whole text"),
    "minimax_m3": Format((("<mm:think>", "</mm:think>"),)),
    "mistral": Format((("[THINK]", "[/THINK]"),)),
    "muse_glimmer": Format((("to=self<|message|>", "<|eom|>"),), by_vllm=True),
    "nemotron_v3": _OPENED,
    "olmo3": Format(when_cut="the whole text"),
    "openai_gptoss": Format((), channels=True),
    "plamo3": Format((("<|plamo:begin_think:plamo|>", "<|plamo:end_think:plamo|>"),), opened=True),
    "poolside_v1": Format(when_cut="the whole text"),
    "qwen3": _OPENED,
    "seed_oss": Format((("<seed:think>", "</seed:think>"),), opened=True),
    "step3": _OPENED,
    "step3p5": _OPENED,
}
"""Reasoning parsers. The templates of the models without `opened` leave it to the model to open its thinking, or open it in the
prompt only if they are told to, which the prompt then shows."""

KNOWN_MARKS: tuple[Pair, ...] = tuple(
    dict.fromkeys((*USUAL_MARKS, *(pair for known in FORMATS.values() if not known.by_vllm for pair in known.pairs)))
)
"""Marks that a chat template or a tokenizer may name."""
TOLD_BY_MARKS = ("granite", "inkling", "kimi_k3", "muse_glimmer")
"""Formats of vLLM's own parsers that a chat template or a tokenizer shows by their first pair of marks."""

TOOL_PARSERS = (
    "apertus", "cohere_command3", "cohere_command4", "deepseek_v3", "deepseek_v31", "deepseek_v32", "deepseek_v4", "deepseek_v41",
    "dots", "ernie45", "functiongemma", "gemma4", "gigachat3", "glm45", "glm47", "granite", "granite-20b-fc", "granite4",
    "hermes", "hf", "hunyuan_a13b", "hy_v3", "hy_v4", "inkling", "internlm", "jamba", "k2_horizon", "kimi_k2", "kimi_k3", "lfm2",
    "ling3", "llama3_json", "llama4_json", "llama4_pythonic", "longcat", "mimo", "minicpm5", "minimax_m2", "minimax_m3",
    "mistral", "muse_glimmer", "olmo3", "openai", "phi4_mini_json", "plamo3", "poolside_v1", "pythonic", "qwen3_coder",
    "qwen3_json", "qwen3_xml", "seed_oss", "step3", "step3p5", "xlam",
)  # fmt: skip
WHOLE = ("cohere_command3", "cohere_command4", "hf", "inkling", "kimi_k3", "muse_glimmer")
"""Tool parsers whose calls stand beside the answer in channels of their own: they need the reasoning parser of the same name."""


def marking_by_name(name: str, pairs: tuple[Pair, ...] = USUAL_MARKS) -> Marking:
    """How the models of a reasoning parser mark their thinking. `pairs` are the marks of a parser that is not on the table, which
    a plugin of vLLM may register."""
    known = FORMATS.get(name)
    if known is None:
        return Marking(pairs, channels=False, parser=name)
    opened = True if known.opened else None
    return Marking(known.pairs, channels=known.channels, opened=opened, parser=name if known.by_vllm else None)


def check_parsers(spec: ModelSpec, engine: Engine | None, where: Callable[[tuple[str | int, ...]], str]) -> None:
    """Raise RecipeError for a parser that vLLM does not know, or that runs in no process of ours: `engine` is None for a user's
    own samples. vLLM is imported only for a name that is not on the table."""
    in_process = isinstance(engine, VllmEngine)
    if isinstance(spec.reasoning, str) and spec.reasoning != "auto":
        place = where(("model", "reasoning"))
        if spec.reasoning not in FORMATS and spec.reasoning not in (plugins := _registered("reasoning")):
            raise RecipeError(_unknown(place, "reasoning", spec.reasoning, {**FORMATS, "auto": None, **dict.fromkeys(plugins)}))
        if marking_by_name(spec.reasoning).parser is not None and not in_process:
            raise RecipeError(
                f"{place}: the reasoning parser {spec.reasoning} is code of vLLM and takes apart only what vLLM draws in this "
                "process (engine.kind: vllm); start a server with --reasoning-parser and leave model.reasoning out, or give "
                "the marks {start, end}"
            )
    if spec.tool_parser is None:
        return
    place = where(("model", "tool_parser"))
    if spec.tool_parser not in TOOL_PARSERS and spec.tool_parser not in (plugins := _registered("tool")):
        raise RecipeError(_unknown(place, "tool", spec.tool_parser, dict.fromkeys((*TOOL_PARSERS, *plugins))))
    if not in_process:
        raise RecipeError(
            f"{place}: the tool parser {spec.tool_parser} reads only what vLLM draws in this process (engine.kind: vllm); a "
            "server parses calls itself (--enable-auto-tool-choice --tool-call-parser), so leave model.tool_parser out"
        )
    if spec.tool_parser in WHOLE and spec.reasoning not in ("auto", spec.tool_parser):
        raise RecipeError(
            f"{place}: {spec.tool_parser} also tells the reasoning apart; set model.reasoning to {spec.tool_parser}"
        )


# -- inside --------------------------------------------------------------------------------------------------------------


def _registered(kind: Literal["reasoning", "tool"]) -> list[str]:
    """The parsers that vLLM and its plugins register; none where vLLM is not installed."""
    try:
        from vllm.plugins import load_general_plugins
        from vllm.reasoning import ReasoningParserManager
        from vllm.tool_parsers import ToolParserManager
    except ImportError:
        return []
    load_general_plugins()
    manager = ReasoningParserManager if kind == "reasoning" else ToolParserManager
    return list(manager.list_registered())


def _unknown(place: str, kind: str, name: str, known: dict[str, object]) -> str:
    return (
        f"{place}: vLLM has no {kind} parser {name!r}{did_you_mean(name, known)}; it has {', '.join(sorted(known))}; "
        "a parser of your own must be registered by a plugin of vLLM"
    )
