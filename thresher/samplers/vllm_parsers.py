"""Takes completions apart by vLLM's own parsers: tool calls, and the reasoning of formats that are no pair of marks.

The parsers are those of vLLM's server. What they would lose is kept here: a completion that ended inside its thinking has no
answer, thinking that mentions a mark of a call is no call, and a call that was cut at max_tokens is no call. A parser that raises
costs the calls of that sample only."""

import json
import logging
import threading
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from filters.reasoning import Marking, TakenApart, channel_calls, take_apart
from thresher.errors import EngineError
from thresher.inputs.models import Model
from thresher.samplers.sampler import Completion, Drawn, Group, Parts

log = logging.getLogger(__name__)

HARMONY = "openai"
"""The tool parser of gpt-oss, which in vLLM is only a name: calls are messages of channels."""

Call = tuple[str, str]
"""The name of a tool, and its arguments as the parser gives them, JSON text."""


class VllmParsers:
    """The parsers of one model. Threads may share them.

    `tool_parser` names the parser of tool calls, None for none. A `marking` with a parser is taken apart by that one. Raises
    EngineError if they do not fit the model's tokeniser. `model_config` is vLLM's, which some parsers read.
    """

    model_config: Any = None

    def __init__(self, model: Model, marking: Marking | None, tool_parser: str | None) -> None:
        self._model, self._marking, self._tools = model, marking, tool_parser
        self._reasoning = None if marking is None else marking.parser
        self._lock = threading.Lock()
        self._request = lru_cache(maxsize=256)(_request)
        self._failed: set[str] = set()
        self._tokenizer: Any = None
        self._class: Any = None
        if self._reasoning or (tool_parser and not self._is_harmony):
            self._load()

    @property
    def _is_harmony(self) -> bool:
        return self._tools == HARMONY and self._marking is not None and self._marking.channels

    def _load(self) -> None:
        from vllm.parser.parser_manager import ParserManager
        from vllm.tokenizers import get_tokenizer

        for name in ("vllm.tool_parsers", "vllm.reasoning", "vllm.parser"):
            logging.getLogger(name).setLevel(logging.CRITICAL)  # they log a traceback for each call that a model spoiled
        self._tokenizer = get_tokenizer(self._model.path)
        try:
            self._class = ParserManager.get_parser(
                tool_parser_name=self._tools,
                reasoning_parser_name=self._reasoning,
                enable_auto_tools=True,
                tokenizer=self._tokenizer,
            )
        except Exception as error:
            names = " and ".join(name for name in (self._reasoning, self._tools) if name)
            raise EngineError(f"model.reasoning, model.tool_parser: {names}: {type(error).__name__}: {error}") from error

    def apart(self, drawn: Drawn, group: Group, token_bytes: NDArray[np.int32] | None) -> Drawn:
        """Return the completions of a group with `parts`, where these parsers found something. `token_bytes` has the bytes of the
        text of each token (V,)."""
        if group.labels or not drawn.completions:
            return drawn
        found: list[Parts | None]
        if self._reasoning:
            found = [self._whole(completion, group, drawn, token_bytes) for completion in drawn.completions]
        else:
            texts = pa.array([completion.text for completion in drawn.completions], pa.string())
            split = take_apart(texts, self._marking, [drawn.opened] * len(texts))
            found = [self._calls(completion, group, split, row, token_bytes) for row, completion in enumerate(drawn.completions)]
        completions = (replace(completion, parts=parts) for completion, parts in zip(drawn.completions, found, strict=True))
        return replace(drawn, completions=tuple(completions))

    def _calls(
        self, completion: Completion, group: Group, split: TakenApart, row: int, token_bytes: NDArray[np.int32] | None
    ) -> Parts | None:
        """The parts of a completion whose reasoning our own code takes apart; None if its answer calls no tool."""
        assert self._tools is not None
        answer = split.answer[row].as_py()
        if not answer and not self._is_harmony:
            return None
        if completion.finish_reason == "length":  # the last call may be cut, and parsers complete it
            return None
        if self._is_harmony:
            calls, rest = channel_calls(completion.text), answer
        else:
            parsed = self._parsed(answer, group, completion)
            if parsed is None:
                return None
            _, rest, calls = parsed
        if not calls:
            return None  # what a parser leaves of an answer without calls may lack quoted marks
        reasoning = split.reasoning[row].as_py()
        tokens = completion.tokens_before(int(split.ends[row]), token_bytes)
        return Parts(self._tools, reasoning, rest or "", _calls_text(calls), tokens)

    def _whole(self, completion: Completion, group: Group, drawn: Drawn, token_bytes: NDArray[np.int32] | None) -> Parts:
        """The parts of a completion that vLLM's reasoning parser takes apart, with its calls."""
        assert self._marking is not None
        assert self._reasoning is not None
        text, name = completion.text, self._reasoning
        inside = self._marking.opened if drawn.opened is None else drawn.opened
        closed = any(end in text for _, end in self._marking.pairs)
        leading = next((start for start, _ in self._marking.pairs if text.lstrip().startswith(start)), None)
        if not closed and (leading is not None or inside):
            thought = text.lstrip().removeprefix(leading or "").strip()
            return Parts(name, thought, None, None, completion.tokens_before(len(text.encode()), token_bytes))
        parsed = self._parsed(text, group, completion, drawn.prompt_ids)
        if parsed is None:
            return Parts(name, None, text, None, 0)
        reasoning, answer, calls = parsed
        if reasoning and answer is None and not calls and not closed and self._marking.opened:
            reasoning, answer = None, reasoning  # the parser expects thinking, but the prompt did not open it
        place = text.find(reasoning) if reasoning else -1  # -1: a parser may leave out marks inside the thinking
        end = place + len(reasoning) if reasoning and place >= 0 else 0
        if calls and completion.finish_reason == "length":
            calls, answer = [], text[end:]
        if answer is None and (calls or closed or not reasoning):
            answer = ""
        tokens: int | None = 0
        if reasoning:
            mark = next((len(m) for _, m in self._marking.pairs if text[end:].lstrip().startswith(m)), 0)
            end += len(text[end:]) - len(text[end:].lstrip()) + mark if mark else 0
            tokens = completion.tokens_before(len(text[:end].encode()), token_bytes) if place >= 0 else None
        by = f"{name}+{self._tools}" if calls and self._tools != name else name
        answer = None if answer is None else answer.lstrip("\r\n")
        return Parts(by, reasoning.strip() if reasoning else None, answer, _calls_text(calls) if calls else None, tokens)

    def _parsed(
        self, text: str, group: Group, completion: Completion, prompt_ids: NDArray[np.int32] | None = None
    ) -> tuple[str | None, str | None, list[Call]] | None:
        """Reasoning, content and calls by vLLM's parser; None if it raised an error, of which the first of a kind is logged."""
        arguments = {} if group.template is None else json.loads(group.template)
        ids = [] if completion.token_ids is None else completion.token_ids.tolist()
        try:
            with self._lock:
                request = self._request(group.tools)
                parser = self._class(
                    self._tokenizer, request.tools, chat_template_kwargs=arguments, model_config=self.model_config
                )
                if prompt_ids is not None:
                    parser.set_prompt_token_ids(prompt_ids.tolist())
                reasoning, content, calls = parser.parse(text, request, enable_auto_tools=True, model_output_token_ids=ids)
        except Exception as error:  # noqa: BLE001 - whatever a parser raises, it costs the calls of this sample
            kind = type(error).__name__
            if kind not in self._failed:
                self._failed.add(kind)
                names = "+".join(name for name in (self._reasoning, self._tools) if name)
                log.warning("the parser %s of vLLM failed on %r: %s: %s", names, text[:120], kind, error)
            return None
        return reasoning, content, [(call.name, call.arguments) for call in calls or ()]


# -- inside --------------------------------------------------------------------------------------------------------------


def _request(tools: str | None) -> Any:
    """The request that a server would have parsed the answer to. Parsers read its tools, and whether they may be called."""
    from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest

    entries = None if tools is None else json.loads(tools)
    request = ChatCompletionRequest(messages=[{"role": "user", "content": ""}], model="", tools=entries or None)
    request.tool_choice = "auto"
    request.skip_special_tokens = False
    return request


def _calls_text(calls: Sequence[Call]) -> str:
    """The JSON text of calls. Half a surrogate pair, which models do write, is escaped."""
    values = [{"name": name, "arguments": _object(arguments)} for name, arguments in calls]
    text = json.dumps(values, ensure_ascii=False)
    return text if _is_storable(text) else json.dumps(values)


def _is_storable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _object(arguments: str) -> Any:
    """The arguments of a call as an object; their text if it is none."""
    try:
        value = json.loads(arguments)
        if isinstance(value, str):  # some models write the object as a text, which parsers encode again
            value = json.loads(value)
        json.dumps(value, allow_nan=False)
    except (ValueError, RecursionError):
        return arguments
    return value if isinstance(value, dict) else arguments
