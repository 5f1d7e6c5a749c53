"""Scores answers with the scorer of a reasoning-gym family (github.com/open-thought/reasoning-gym).

An item is a function of name, config, seed and index. A supervised worker with a fixed hash seed generates it again and scores
the answer. Prompts of `source: {kind: reasoning_gym}` carry these values in `metadata.reasoning_gym`.

`bad_reference` refuses the nine families whose scorers run an answer as code (reasoning-gym is not available in the sandbox, and
model output runs only there), the two whose items cannot be reproduced, and items whose scorer gives full marks to nonsense: it
is shown an empty text, `I do not know` and the question first. Where the answer is one of two words, such as True and False, it
is compared with the item's instead. It is also shown spoilt answers: another number, the sign turned, a word more, a negation,
the first half. A scorer that gives full marks to one of them is believed only where it refuses, and where the answer is the
item's own, as a text or as a number; otherwise the answer is `unverifiable`.

Scorers are strict about form and lenient about content: most refuse the right answer with a full stop, and more than half give
part of the score to `The answer is X.`. So an answer must get the full score, and is shown without what only marks it too (a full
stop, bold, a box, <answer> tags). A text that a scorer cannot read, or that has the item's answer among other words, is
`unparsed`. docs/reasoning-gym.md lists all families.
"""

import json
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cached_property, lru_cache
from typing import Any

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field

from filters.base import Filter, Role, Scope
from filters.supervise import Answer, verdict_of
from filters.tools import Tools
from schemas.sample import Verdict

EVALUATING = frozenset({
    "binary_matrix", "countdown", "intermediate_integration", "n_queens", "polynomial_multiplication", "puzzle24",
    "simple_integration", "spiral_matrix", "string_insertion",
})  # fmt: skip
"""Families of reasoning-gym 0.1.25 whose scorers run an answer as code."""
UNSTABLE = frozenset({"acre", "codeio"})
"""Families whose items differ each time they are generated."""
SHOWN_CHARS = 200
NONSENSE = ("", "I do not know")
"""Texts that are the answer of no item."""
_TWO_WORDS = frozenset(("true", "false", "yes", "no"))
_UNREAD = "cannot be read by its scorer: "
_DOUBTED = "its scorer gives full marks to "
_TAGS = re.compile(r"<answer>([^<>]{1,2000})</answer>", re.IGNORECASE)
_BOX = re.compile(r"\\boxed\{([^{}]{1,2000})\}")
_NUMBER = re.compile(r"[+-]?\d+(?:\.\d+)?")


class Config(BaseModel):
    """Parameters of `reasoning_gym`."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    after: str | None = None
    """The answer is the text after the last occurrence of this marker; null uses the whole completion."""
    threshold: float = Field(default=1.0, gt=0, le=1)
    """Lowest score of a correct answer."""
    seconds: float = Field(default=10.0, gt=0, le=300)
    """Wall time to generate and score one item; an answer that takes longer is undecided as `timeout`."""


def build(config: Config, tools: Tools) -> Filter:
    """Drop `wrong_answer`; undecided with `unparsed`, `unverifiable`, `bad_reference`, `no_reference`, `timeout`, `crash`,
    `filter_error`.

    The score is reasoning-gym's.
    """
    pool = tools.workers.pool("filters.reasoning_gym:worker", seconds=config.seconds)

    def judge(table: pa.Table) -> list[Verdict]:
        verdicts: list[Verdict | None] = []
        items: list[list[Any]] = []
        for completion, metadata in zip(table["completion"].to_pylist(), table["metadata"].to_pylist(), strict=True):
            item = _item(completion, metadata, config.after)
            verdicts.append(item if isinstance(item, Verdict) else None)
            if not isinstance(item, Verdict):
                items.append(item)
        answers = iter(zip(items, pool.map(items), strict=True))
        return [_verdict(*next(answers)) if verdict is None else verdict for verdict in verdicts]

    def _verdict(item: list[Any], answer: Answer) -> Verdict:
        if answer.kind != "done":
            return verdict_of(answer)
        if isinstance(answer.value, str) and answer.value.startswith(_UNREAD):
            return Verdict.undecided("unparsed", why=answer.value, found=item[4][:SHOWN_CHARS])
        if isinstance(answer.value, str) and answer.value.startswith(_DOUBTED):
            return Verdict.undecided("unverifiable", why=answer.value, found=item[4][:SHOWN_CHARS])
        if isinstance(answer.value, str):
            return Verdict.undecided("bad_reference", why=answer.value)
        if answer.value >= config.threshold:
            return Verdict.keep(answer.value)
        return Verdict.drop("wrong_answer", answer.value, found=item[4][:SHOWN_CHARS])

    def gold(reference: Any) -> str | None:
        return f"{config.after or ''}{reference}" if isinstance(reference, str | int | float) else None

    def wrong(reference: Any) -> str | None:
        return f"{config.after or ''}-987654321" if isinstance(reference, str | int | float) else None

    columns = ("completion", "metadata")
    parameters = config.model_dump(mode="json")
    return Filter("reasoning_gym", "2", Scope.SAMPLE, Role.VERIFIER, judge, columns, parameters, gold, wrong, cost_us=600.0)


def _item(completion: str, metadata: str, after: str | None) -> Verdict | list[Any]:
    """The item and the answer that a sample gives, or the verdict without either."""
    origin = json.loads(metadata).get("reasoning_gym")
    if origin is None:
        return Verdict.undecided("no_reference", wanted="metadata.reasoning_gym with name, config, seed and index")
    if not isinstance(origin, Mapping) or not {"name", "seed", "index"} <= origin.keys():
        return Verdict.undecided("bad_reference", why="metadata.reasoning_gym wants name, config, seed and index")
    if origin["name"] in EVALUATING:
        return Verdict.undecided("bad_reference", why=f"{origin['name']}: its scorer runs answers as code; leave the family out")
    if origin["name"] in UNSTABLE:
        return Verdict.undecided("bad_reference", why=f"{origin['name']}: its items cannot be made again; leave the family out")
    if after is not None:
        _, marker, completion = completion.rpartition(after)
        if not marker:
            return Verdict.undecided("unparsed", why=f"no {after!r}")
    if not completion.strip():
        return Verdict.undecided("unparsed", why="an empty answer")
    return [origin["name"], origin.get("config") or {}, origin["seed"], origin["index"], completion.strip()]


def worker(_: Any) -> Callable[[list[Any]], float | str]:
    """Score `[name, config, seed, index, answer]` in a worker. Returns the score, or a text on why there is no such item."""
    try:
        import reasoning_gym
    except ImportError as error:
        raise ImportError("reasoning_gym is not installed; pip install 'thresher[reasoning]'") from error

    @lru_cache(maxsize=256)
    def dataset(name: str, config: str, seed: int, index: int) -> Any:
        return reasoning_gym.create_dataset(name, seed=seed, size=index + 1, **json.loads(config))

    @lru_cache(maxsize=4_096)  # the samples of a prompt share their item
    def item_of(name: str, config: str, seed: int, index: int) -> _Item:
        scorer = dataset(name, config, seed, index)
        return _Item(scorer, scorer[index])

    def score(item: list[Any]) -> float | str:
        name, config, seed, index, answer = item
        try:
            asked = item_of(name, json.dumps(config, sort_keys=True), int(seed), int(index))
        except Exception as error:  # noqa: BLE001 - an unknown family or an invalid config: the prompt is at fault
            return f"{name}: {type(error).__name__}: {error}"[:SHOWN_CHARS]
        if asked.nonsense is None:
            return asked.score(answer)
        if asked.gold.strip().casefold() in _TWO_WORDS:
            return asked.compared(answer)
        return f"{name}: its scorer gives full marks to {asked.nonsense}; leave the family out"

    return score


class _Item:
    """An item and its scorer, and what the scorer accepts wrongly."""

    def __init__(self, scorer: Any, entry: Any) -> None:
        self.scorer, self.entry, self.gold = scorer, entry, str(entry["answer"])

    @cached_property
    def nonsense(self) -> str | None:
        """The nonsense to which the scorer gives full marks, as it is shown; None if there is none."""
        shown_as = [*((repr(text), text) for text in NONSENSE), ("the question itself", self.entry["question"])]
        # An empty text may be right: to spell it backwards.
        return next((what for what, text in shown_as if text != self.gold and self.gives_full_marks(text)), None)

    @cached_property
    def spoilt(self) -> str | None:
        """A spoilt answer to which the scorer gives full marks; None if there is none."""
        return next(filter(self.gives_full_marks, spoilt(self.gold)), None)

    def gives_full_marks(self, text: str) -> bool:
        """Whether the scorer accepts a text; one that it cannot read it does not."""
        with suppress(Exception):
            return bool(self.scorer.score_answer(text, self.entry) >= 1)
        return False

    def compared(self, answer: str) -> float | str:
        """The score of an answer that is one of two words, by comparison."""
        right, said = self.gold.strip().casefold(), answer.casefold().strip(" .!\"'")
        if said != right and right in re.findall(r"[a-z]+", said):
            return f"{_UNREAD}{right} stands among other words"
        return float(said == right)

    def score(self, answer: str) -> float | str:
        """The score of an answer, or why it has none."""
        best, failure = 0.0, ""
        for text in shown(answer):
            try:
                marks = float(self.scorer.score_answer(text, self.entry))
            except Exception as error:  # noqa: BLE001 - scorers raise whatever they meet in a text that they cannot read
                failure = failure or f"{_UNREAD}{type(error).__name__}: {error}"[:SHOWN_CHARS]
                continue
            if marks >= 1 and is_own(text, self.gold):
                return marks
            best = max(best, marks)
        if best >= 1:
            return best if self.spoilt is None else f"{_DOUBTED}{self.spoilt!r} for {self.gold!r}"[:SHOWN_CHARS]
        if failure or stands_among_words(self.gold, answer):
            return failure or f"{_UNREAD}the item's answer stands among other words"
        return best


def shown(answer: str) -> list[str]:
    """An answer as it is, and without what only marks it as one."""
    texts = [answer]
    texts += [found[0].strip() for pattern in (_TAGS, _BOX) if len(found := pattern.findall(answer)) == 1]
    texts += [text.strip(" \n*`$").removesuffix(".").strip(" *`$") for text in texts]
    return [text for text in dict.fromkeys(texts) if text]


def stands_among_words(gold: str, answer: str) -> bool:
    """Whether the gold answer stands in an answer that has words besides."""
    place = re.search(rf"(?<![\w.]){re.escape(gold)}(?![\w]|\.\d)", answer, re.IGNORECASE) if gold.strip() else None
    return place is not None and re.search(r"[^\W\d_]{2}", answer[: place.start()] + " " + answer[place.end() :]) is not None


def spoilt(gold: str) -> list[str]:
    """Answers that are wrong where the gold one is the only right one."""
    numbers = list(_NUMBER.finditer(gold))
    texts = ["0", "nan", f"{gold} zebra", f"{gold}, zebra", gold[: len(gold) // 2], re.sub(r"\bis\b", "is not", gold)]
    if _NUMBER.fullmatch(gold):
        texts.append(gold.lstrip("+-") if gold[0] == "-" else f"-{gold}")
    if numbers:
        first = numbers[0]
        texts.append(f"{gold[: first.start()]}{round(float(first[0]) + 0.9, 6)}{gold[first.end() :]}")
    return [text for text in dict.fromkeys(texts) if text.strip() and not is_own(text, gold)]


def is_own(answer: str, gold: str) -> bool:
    """Whether an answer is the gold one: as a text without case and punctuation at its ends, or as a number."""
    plain = [text.strip(" .!\"'\n").casefold() for text in (answer, gold)]
    if plain[0] == plain[1]:
        return True
    return all(map(_NUMBER.fullmatch, plain)) and float(plain[0]) == float(plain[1])
