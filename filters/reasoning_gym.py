"""The scorer of a reasoning-gym family (github.com/open-thought/reasoning-gym), on the item that the prompt was made from.

An item is a function of name, config, seed and index, so it is made again in a supervised worker and asked for its score; the
worker's hash seed is fixed. Prompts of `source: {kind: reasoning_gym}` carry what is needed in `metadata.reasoning_gym`.

Refused as `bad_reference`: the nine families whose scorers run an answer as code (the sandbox has no reasoning-gym inside, and
nothing else may run what a model wrote), and the two whose items cannot be made again. Scorers are lenient: 54 families give part
of the score to `The answer is X.`; so an answer is read out by a rule and must have the full score.
"""

import json
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field

from filters.base import Filter, Role, Scope
from filters.supervise import Pool, verdict_of
from schemas.sample import Verdict

EVALUATING = frozenset({
    "binary_matrix", "countdown", "intermediate_integration", "n_queens", "polynomial_multiplication", "puzzle24",
    "simple_integration", "spiral_matrix", "string_insertion",
})  # fmt: skip
"""Families of reasoning-gym 0.1.25 whose scorers run an answer as code."""
UNSTABLE = frozenset({"acre", "codeio"})
"""Families whose items differ from one making to the next."""
SHOWN_CHARS = 200


class Config(BaseModel):
    """Parameters of `reasoning_gym`."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    after: str | None = None
    """The answer is what follows the last occurrence of this marker; null takes the whole completion."""
    threshold: float = Field(default=1.0, gt=0, le=1)
    """Score from which an answer is right."""
    seconds: float = Field(default=10.0, gt=0, le=300)
    """Wall time of one score, with the making of the item."""


def build(config: Config) -> Filter:
    """Drop `wrong_answer`; undecided with `unparsed`, `bad_reference`, `no_reference`, `timeout`, `crash`, `filter_error`. The
    score is reasoning-gym's."""
    pool = Pool("filters.reasoning_gym:worker", seconds=config.seconds)

    def judge(table: pa.Table) -> list[Verdict]:
        verdicts: list[Verdict | None] = []
        items: list[list[Any]] = []
        for completion, metadata in zip(table["completion"].to_pylist(), table["metadata"].to_pylist(), strict=True):
            said = _item(completion, metadata)
            verdicts.append(said if isinstance(said, Verdict) else None)
            if not isinstance(said, Verdict):
                items.append(said)
        answers = iter(zip(items, pool.map(items), strict=True))
        return [_verdict(*next(answers)) if one is None else one for one in verdicts]

    def _item(completion: str, metadata: str) -> Verdict | list[Any]:
        made = json.loads(metadata).get("reasoning_gym")
        if made is None:
            return Verdict.undecided("no_reference", wanted="metadata.reasoning_gym with name, config, seed and index")
        if not isinstance(made, Mapping) or not {"name", "seed", "index"} <= made.keys():
            return Verdict.undecided("bad_reference", why="metadata.reasoning_gym wants name, config, seed and index")
        if made["name"] in EVALUATING:
            return Verdict.undecided(
                "bad_reference", why=f"{made['name']}: its scorer runs answers as code; leave the family out"
            )
        if made["name"] in UNSTABLE:
            return Verdict.undecided("bad_reference", why=f"{made['name']}: its items cannot be made again; leave the family out")
        if config.after is not None:
            _, marker, completion = completion.rpartition(config.after)
            if not marker:
                return Verdict.undecided("unparsed", why=f"no {config.after!r}")
        if not completion.strip():
            return Verdict.undecided("unparsed", why="an empty answer")
        return [made["name"], made.get("config") or {}, made["seed"], made["index"], completion.strip()]

    def _verdict(item: list[Any], answer: Any) -> Verdict:
        if answer.kind != "done":
            return verdict_of(answer)
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
    return Filter("reasoning_gym", "1", Scope.SAMPLE, Role.VERIFIER, judge, columns, parameters, gold, wrong, cost_us=600.0)


def worker(_: Any) -> Callable[[list[Any]], float | str]:
    """Scores `[name, config, seed, index, answer]`; a text says why there is no such item."""
    try:
        import reasoning_gym
    except ImportError as error:
        raise ImportError("reasoning_gym is not installed; pip install 'thresher[reasoning]'") from error

    @lru_cache(maxsize=256)
    def dataset(name: str, config: str, seed: int, index: int) -> Any:
        return reasoning_gym.create_dataset(name, seed=seed, size=index + 1, **json.loads(config))

    @lru_cache(maxsize=4_096)  # the samples of a prompt share their item
    def entry(name: str, config: str, seed: int, index: int) -> Any:
        return dataset(name, config, seed, index)[index]

    def score(item: list[Any]) -> float | str:
        name, config, seed, index, answer = item
        key = (name, json.dumps(config, sort_keys=True), int(seed), int(index))
        try:
            found = entry(*key)
        except Exception as error:  # noqa: BLE001 - an unknown family, a config that it refuses: said of the prompt
            return f"{name}: {type(error).__name__}: {error}"[:SHOWN_CHARS]
        return float(dataset(*key).score_answer(answer, found))

    return score
