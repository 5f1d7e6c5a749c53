"""Judging: the contract is checked, and a failure is that of its sample only."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from filters import judging
from filters.base import Filter, FilterError, Role, Scope, verdict_table
from filters.judging import judge, judge_corpus, one_by_one, per_prompt
from helpers.filter_tables import pool_table
from schemas.sample import Sample, Verdict

TABLE = pool_table(*({"completion": text, "prompt_id": prompt} for text, prompt in zip("abc", "ppq", strict=True)))


def make(function: Any, scope: Scope = Scope.SAMPLE, columns: tuple[str, ...] = ("prompt_id", "completion")) -> Filter:
    return Filter("mine", "1", scope, Role.QUALITY, function, columns)


def shaky(sample: Sample) -> Verdict:
    if sample.completion == "boom":
        raise ZeroDivisionError("boom")
    return Verdict.keep(score=0.5)


@pytest.mark.slow
@given(st.lists(st.sampled_from(["ok", "boom"]), max_size=20))
def test_only_the_failing_samples_are_undecided(texts: list[str]) -> None:
    """They are found by bisection; the order is kept and the error is named."""
    verdicts = judge(make(one_by_one(shaky, ("completion",))), pool_table(*({"completion": text} for text in texts))).to_pylist()

    assert [row["outcome"] for row in verdicts] == ["undecided" if text == "boom" else "keep" for text in texts]
    assert {row["detail"] for row in verdicts if row["outcome"] == "undecided"} <= {'{"error":"ZeroDivisionError: boom"}'}


def test_in_scope_prompt_the_whole_prompt_is_undecided() -> None:
    """A prompt's samples are judged together, so they fail together. The other prompt is judged."""

    def judge_prompt(samples: Sequence[Sample]) -> Sequence[Verdict]:
        return [shaky(sample) for sample in samples]

    built = make(per_prompt(judge_prompt, ("prompt_id", "completion")), Scope.PROMPT)
    rows = [
        {"prompt_id": "p", "completion": "ok"},
        {"prompt_id": "q", "completion": "boom"},
        {"prompt_id": "p", "completion": "x"},
    ]
    rows.append({"prompt_id": "q", "completion": "ok"})

    assert judge(built, pool_table(*rows))["outcome"].to_pylist() == ["keep", "undecided", "keep", "undecided"]


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda rows: [], "wanted 1 verdicts, one per sample, found 0"),
        (lambda rows: verdict_table(["maybe"], [""]), "outcomes must be"),
        (lambda rows: verdict_table(["drop"], [""]), "snake_case"),
        (lambda rows: verdict_table(["drop"], ["Too Bad"]), "snake_case word, found 'Too Bad'"),
        (lambda rows: verdict_table(["keep"], ["why"]), "a kept sample has no reason"),
        (lambda rows: ["keep"], "must return Verdict objects"),
    ],
)
def test_a_broken_contract_is_named(answer: Any, message: str) -> None:
    """With the filter, what was wanted and what was found."""
    with pytest.raises(FilterError, match=f"mine: .*{message}"):
        judge(make(answer), pool_table({"completion": "x"}))


def test_a_corpus_filter_that_fails_leaves_the_rest_undecided() -> None:
    """The verdicts before the failure are kept."""

    def fails(batches: Any) -> Any:
        for number, batch in enumerate(batches):
            if number == 1:
                raise OSError("gone")
            yield [Verdict.keep()] * batch.num_rows

    batches = [pool_table({"completion": "a"}), pool_table({"completion": "b"}), pool_table({"completion": "c"})]
    outcomes = [verdicts["outcome"].to_pylist() for verdicts in judge_corpus(make(fails, Scope.CORPUS), batches)]

    assert outcomes == [["keep"], ["undecided"], ["undecided"]]


@pytest.mark.parametrize("detail", [object(), float("nan")], ids=["no-json", "nan"])
def test_a_detail_without_json_text_costs_its_sample_only(detail: Any) -> None:
    """The other samples keep their verdicts."""
    verdicts = judge(make(lambda table: [Verdict.keep(), Verdict.drop("bad", what=detail), Verdict.keep()]), TABLE)

    assert verdicts["reason"].to_pylist() == ["", "filter_error", ""]


def test_a_lone_surrogate_in_a_detail_is_escaped() -> None:
    """Arrow stores only UTF-8, and models do write such escapes."""
    verdicts = judge(make(lambda table: [Verdict.drop("bad", found="é\ud800")] * 3), TABLE)

    assert verdicts["detail"][0].as_py() == '{"found":"é\\ud800"}'


def test_lack_of_memory_is_no_verdict() -> None:
    """Halving the batch would hide that the machine is at fault."""

    def exhausted(table: pa.Table) -> list[Verdict]:
        raise MemoryError

    with pytest.raises(MemoryError):
        judge(make(exhausted), TABLE)


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
    """A bug of the filter must not look like undecided samples."""
    with pytest.raises(FilterError, match=message):
        judge(make(judges, Scope.PROMPT), TABLE)


def test_a_missing_column_is_named() -> None:
    with pytest.raises(FilterError, match="mine: wanted the column reference, found completion, prompt_id"):
        judge(make(lambda table: [], columns=("reference",)), TABLE.select(["completion", "prompt_id"]))


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
    """Otherwise a pool that is half unreadable would look judged."""

    def batches() -> Iterator[pa.Table]:
        yield TABLE
        raise OSError("disk gone")

    with pytest.raises(OSError, match="disk gone"):
        list(judge_corpus(make(judges, Scope.CORPUS), batches()))


def test_a_filter_is_shown_a_bounded_number_of_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the samples are; one with more is shown alone, and the verdicts stay with their samples."""
    monkeypatch.setattr(judging, "BATCH_BYTES", 1_000)
    texts = [str(number) * (2_000 if number % 7 == 0 else 5) for number in range(1, 60)]
    table = pool_table(
        *({"completion": None if text[0] == "9" else text, "answer": None if text[0] == "9" else text} for text in texts)
    )
    shown: list[int] = []

    def keep(rows: pa.Table) -> list[Verdict]:
        shown.append(rows.num_rows)
        assert rows.num_rows == 1 or rows["completion"].nbytes <= 1_400
        return [Verdict.keep(score=float(text[:2])) for text in rows["completion"].to_pylist()]

    verdicts = judge(make(keep, columns=("completion",)), table)

    assert verdicts["score"].to_pylist() == [None if text[0] == "9" else float(text[:2]) for text in texts]
    assert len(shown) > 10


def test_in_scope_prompt_a_batch_has_whole_prompts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the samples of a prompt are not adjacent, or have more bytes together."""
    monkeypatch.setattr(judging, "BATCH_BYTES", 3_000)
    prompts = [f"p{number % 9}" for number in range(90)]
    table = pool_table(
        *({"completion": f"{row} " * (300 if row % 9 == 4 else 20), "prompt_id": prompt} for row, prompt in enumerate(prompts))
    )
    shown: list[list[str]] = []

    def count(rows: pa.Table) -> list[Verdict]:
        shown.append(rows["prompt_id"].to_pylist())
        return [Verdict.keep(score=float(text.split()[0])) for text in rows["completion"].to_pylist()]

    verdicts = judge(make(count, Scope.PROMPT), table)

    assert verdicts["score"].to_pylist() == list(range(90))
    assert len(shown) == 3
    assert sorted(prompt for batch in shown for prompt in set(batch)) == sorted(set(prompts))
