"""What judging and building do when a filter, its details or its source fail."""

import sys
from collections.abc import Iterable, Iterator
from types import ModuleType
from typing import Any

import pyarrow as pa
import pytest
from pydantic import BaseModel

import filters
from filters.base import Filter, FilterError, Role, Scope, verdict_table
from filters.judging import judge, judge_corpus, per_prompt
from schemas.sample import Verdict

TABLE = pa.table({"completion": ["a", "b", "c"], "prompt_id": ["p", "p", "q"]})


def made(judges: Any, scope: Scope = Scope.SAMPLE, columns: tuple[str, ...] = ("prompt_id", "completion")) -> Filter:
    return Filter("mine", "1", scope, Role.QUALITY, judges, columns)


@pytest.mark.parametrize("detail", [object(), float("nan")], ids=["no-json", "nan"])
def test_a_detail_without_json_text_costs_its_sample_only(detail: Any) -> None:
    """The others keep their verdicts."""
    verdicts = judge(made(lambda table: [Verdict.keep(), Verdict.drop("bad", what=detail), Verdict.keep()]), TABLE)

    assert verdicts["reason"].to_pylist() == ["", "filter_error", ""]


def test_half_a_surrogate_pair_in_a_detail_is_escaped() -> None:
    """Arrow stores UTF-8 only, and models write such escapes."""
    verdicts = judge(made(lambda table: [Verdict.drop("bad", found="é\ud800")] * 3), TABLE)

    assert verdicts["detail"][0].as_py() == '{"found":"é\\ud800"}'


def test_lack_of_memory_is_no_verdict() -> None:
    """Halving the batch would hide it."""

    def exhausted(table: pa.Table) -> list[Verdict]:
        raise MemoryError

    with pytest.raises(MemoryError):
        judge(made(exhausted), TABLE)


@pytest.mark.parametrize(
    ("judges", "message"),
    [
        (per_prompt(lambda samples: [Verdict.keep()], ("prompt_id",)), "mine: wanted 2 verdicts, .* found 1"),
        (lambda table: None, "mine: .* found NoneType"),
        (lambda table: pa.table({"outcome": ["keep"] * 3, "reason": [""] * 3}), "mine: .* columns .*'score'"),
        (lambda table: verdict_table(["keep"] * 3, [None] * 3), "mine: a reason may be empty but not null"),
    ],
    ids=["per-prompt-count", "none", "columns", "null-reason"],
)
def test_a_wrong_shape_is_an_error_and_no_verdict(judges: Any, message: str) -> None:
    """An author's bug must not look like undecided samples."""
    with pytest.raises(FilterError, match=message):
        judge(made(judges, Scope.PROMPT), TABLE)


def test_a_missing_column_is_named() -> None:
    """With those that are there."""
    with pytest.raises(FilterError, match="mine: wanted the column reference, found completion, prompt_id"):
        judge(made(lambda table: [], columns=("reference",)), TABLE)


def streaming(batches: Iterable[pa.Table]) -> Iterator[list[Verdict]]:
    for batch in batches:
        yield [Verdict.keep()] * batch.num_rows


def reading_ahead(batches: Iterable[pa.Table]) -> Iterator[list[Verdict]]:
    return streaming(list(batches))


def swallowing(batches: Iterable[pa.Table]) -> Iterator[list[Verdict]]:
    try:
        yield from streaming(batches)
    except OSError:
        return


@pytest.mark.parametrize("judges", [streaming, reading_ahead, swallowing], ids=["streaming", "reading-ahead", "swallowing"])
def test_batches_that_cannot_be_read_are_not_the_corpus_filters_failure(judges: Any) -> None:
    """Else a pool that is half unreadable would look judged."""

    def batches() -> Iterator[pa.Table]:
        yield TABLE
        raise OSError("disk gone")

    with pytest.raises(OSError, match="disk gone"):
        list(judge_corpus(made(judges, Scope.CORPUS), batches()))


class Config(BaseModel):
    """A stranger's, which forbids nothing."""

    threshold: int = 3


def refusing(config: Config) -> Filter:
    raise ValueError("threshold too small")


@pytest.fixture
def stranger(monkeypatch: pytest.MonkeyPatch) -> str:
    """Name of a third party's module whose `build` leaves the parameters out."""
    module = ModuleType("stranger")
    vars(module).update(Config=Config, refusing=refusing, build=lambda config: made(lambda table: []))
    monkeypatch.setitem(sys.modules, "stranger", module)
    return "stranger"


def test_a_built_filter_carries_its_parameters_with_defaults(stranger: str) -> None:
    """Its key would else be the same under all parameters, and old verdicts would pass for new ones."""
    default, other = filters.build(f"{stranger}:build", {}), filters.build(f"{stranger}:build", {"threshold": 5})

    assert (default.parameters, other.parameters) == ({"threshold": 3}, {"threshold": 5})
    assert default.key != other.key


@pytest.mark.parametrize(
    ("function", "parameters", "message"),
    [("build", {"treshold": 5}, "no such key; did you mean threshold"), ("refusing", {}, "threshold too small")],
    ids=["misspelt-key", "build-raises"],
)
def test_a_strangers_filter_is_built_as_strictly(stranger: str, function: str, parameters: dict[str, Any], message: str) -> None:
    """Whatever its Config allows."""
    with pytest.raises(FilterError, match=message):
        filters.build(f"{stranger}:{function}", parameters)
