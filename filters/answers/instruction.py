"""Keep completions that follow verifiable instructions: a number of words, no commas, a title in <<angle brackets>>.

The checks and their names are those of IFEval (Zhou et al. 2023, arXiv 2311.07911) and IFBench (Pyatkin et al. 2025, arXiv
2507.02833); the code is our own. They come from the
recipe (`checks`) or from the prompt's reference in the form of IFEval's own file: `{"instruction_id_list":
["punctuation:no_comma"], "kwargs": [{}]}`. An unknown instruction is refused, never passed. Nothing is random and nothing is
downloaded, so the same text has the same verdict everywhere.
"""

import json
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field

from filters.answers import instruction_checks
from filters.answers.ifbench_forms import FORM_CHECKS
from filters.answers.ifbench_words import WORD_CHECKS, Arguments
from filters.base import Filter, FilterError, Role, Scope
from schemas.sample import Verdict

CHECKS = {**instruction_checks.CHECKS, **WORD_CHECKS, **FORM_CHECKS}
"""Check by name."""
_IFBENCH = ("count", "ratio", "words", "sentence", "format", "custom", "repeat")
"""Groups of instructions of IFBench: one of them that is not known leaves a sample undecided."""


class Config(BaseModel):
    """Parameters of `instruction`."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    checks: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Checks that every completion must pass: name to arguments, such as {"length_constraints:number_words": {"relation": "at
    least", "num_words": 50}}. If empty, the prompt's reference names them."""


def build(config: Config) -> Filter:
    """Drop `instruction_not_followed`, with the failed names; undecided with `no_reference`, `bad_reference`, and `unverifiable`
    where no check failed and one cannot tell (the language of a short text).

    The score is the share of instructions followed.
    """
    fixed = _checks(list(config.checks), list(config.checks.values())) if config.checks else None
    unchecked = [name for name, _ in fixed if name not in CHECKS] if fixed and not isinstance(fixed, str) else []
    if unchecked:
        raise FilterError(
            f"instruction: parameters.checks: no instruction is called {unchecked[0]!r}; known are {', '.join(CHECKS)}"
        )
    if isinstance(fixed, str):
        raise FilterError(f"instruction: parameters.checks: {fixed}")

    @lru_cache(maxsize=65_536)  # the samples of a prompt share their reference
    def wanted(reference: str) -> list[tuple[str, Arguments]] | str:
        value = json.loads(reference)
        if not isinstance(value, dict) or not isinstance(value.get("instruction_id_list"), list):
            return "wanted an object with instruction_id_list and kwargs"
        names = value["instruction_id_list"]
        arguments = value.get("kwargs") or [{}] * len(names)
        return _checks(names, arguments) if isinstance(arguments, list) else "kwargs wants a list of objects"

    def verdict(completion: str, reference: str | None) -> Verdict:
        if fixed is None and (reference is None or reference == "null"):
            return Verdict.undecided("no_reference")
        checks = wanted(reference or "") if fixed is None else fixed
        if isinstance(checks, str):
            return Verdict.undecided("bad_reference", why=checks)
        results = [(name, CHECKS[name](completion, arguments) if name in CHECKS else None) for name, arguments in checks]
        failed = [name for name, followed in results if followed is False]
        unknown = [name for name, followed in results if followed is None]
        if unknown and not failed:
            return Verdict.undecided("unverifiable", why=f"cannot tell: {', '.join(unknown)}")
        score = 1 - len(failed) / len(checks)
        return Verdict.drop("instruction_not_followed", score, failed=failed) if failed else Verdict.keep(score)

    def judge(table: pa.Table) -> list[Verdict]:
        references: Sequence[str | None] = [None] * table.num_rows if fixed is not None else table["reference"].to_pylist()
        return [verdict(*pair) for pair in zip(table["completion"].to_pylist(), references, strict=True)]

    columns = ("completion",) if fixed is not None else ("completion", "reference")
    parameters = config.model_dump(mode="json")
    # No text can be derived from instructions, so references cannot check this filter. The first sample shows if they are read.
    return Filter("instruction", "2", Scope.SAMPLE, Role.VERIFIER, judge, columns, parameters, _no_text, _no_text, cost_us=30.0)


def _no_text(_reference: Any) -> None:
    return None


def _checks(names: Sequence[Any], arguments: Sequence[Any]) -> list[tuple[str, Arguments]] | str:
    """The checks by name with their arguments, or what is wrong with them."""
    if not names or len(names) != len(arguments):
        return f"{len(names)} instructions and arguments of {len(arguments)}; one each is wanted"
    checks: list[tuple[str, Arguments]] = []
    for name, argument in zip(names, arguments, strict=True):
        if not isinstance(name, str) or not isinstance(argument, dict | None):
            return f"{str(name)[:60]!r} with {str(argument)[:60]!r}; wanted a name and an object of arguments"
        if name.partition(":")[0] in _IFBENCH and name not in CHECKS:
            checks.append((name, {}))
            continue
        if name not in CHECKS:
            return f"no instruction is called {name!r}; known are {', '.join(CHECKS)}"
        filled = {key: value for key, value in (argument or {}).items() if value is not None}
        try:
            CHECKS[name]("A text to try it on.", filled)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            return f"{name}: {type(error).__name__}: {error}; its arguments are {json.dumps(filled)[:120]}"
        checks.append((name, filled))
    return checks
