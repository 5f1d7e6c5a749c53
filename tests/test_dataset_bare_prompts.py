"""The view `sft` without worked examples: they are found where the recipe put them, and nothing else is dropped."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import given
from hypothesis import strategies as st

from helpers.runs import run_recipe
from schemas.prompt_sets import PromptSet
from schemas.sample import MESSAGES, Message
from thresher.dataset.bare_prompts import examples_of, without_examples

SHOTS = {"sums": ("1+1?", "2", "2+2?", "4"), "words": ("a?", "b")}


def rows_of(*prompts: tuple[str, list[Message]]) -> pa.Table:
    messages = pa.array([[message.parts for message in turns] for _, turns in prompts], MESSAGES)
    return pa.table({"family": [family for family, _ in prompts], "messages": messages})


def said(table: pa.Table) -> list[list[str]]:
    return [[message["content"] for message in turns] for turns in table["messages"].to_pylist()]


def turns(*texts: str, system: str = "") -> list[Message]:
    first = [Message("system", system)] if system else []
    return first + [Message("assistant" if number % 2 else "user", text) for number, text in enumerate(texts)]


def test_examples_go_and_system_messages_stay() -> None:
    """Each family has its own; turns that only look like them, or that come later, stay."""
    table = rows_of(
        ("sums", turns(*SHOTS["sums"], "3+3?", system="Be brief.")),
        ("sums", turns(*SHOTS["sums"], "1+1?", "2", "and?")),
        ("words", turns(*SHOTS["words"], "c?")),
        ("words", turns(*SHOTS["sums"], "3+3?")),
        ("other", turns("a?", "b", "c?")),
        ("sums", turns("1+1?", "2", "9+9?", "18", "3+3?")),
        ("sums", turns("1+1?")),
    )

    assert said(without_examples(table, SHOTS)) == [
        ["Be brief.", "3+3?"],
        ["1+1?", "2", "and?"],
        ["c?"],
        [*SHOTS["sums"], "3+3?"],
        ["a?", "b", "c?"],
        ["1+1?", "2", "9+9?", "18", "3+3?"],
        ["1+1?"],
    ]
    assert without_examples(table.slice(1, 2), SHOTS)["messages"].type == MESSAGES
    assert said(without_examples(table.slice(1, 2), SHOTS)) == [["1+1?", "2", "and?"], ["c?"]]
    assert without_examples(table.slice(0, 0), SHOTS).num_rows == 0
    assert without_examples(table, {}) is table


text = st.sampled_from(["1+1?", "2", "2+2?", "4", "a?", "b", "x"])


@given(
    st.lists(
        st.tuples(st.sampled_from(["sums", "words", "other"]), st.booleans(), st.booleans(), st.lists(text, min_size=1)),
        min_size=1,
    )
)
def test_dropping_undoes_what_the_recipe_put_in_front(prompts: list[tuple[str, bool, bool, list[str]]]) -> None:
    """Whatever the prompts are, and whether or not they have a system message or the examples at all."""
    with_front = [
        (family, turns(*(SHOTS.get(family, ()) if shown else ()), *texts, system="S" if system else ""))
        for family, system, shown, texts in prompts
    ]
    plain = [(family, turns(*texts, system="S" if system else "")) for family, system, _, texts in prompts]
    expected = [
        own
        if shown or tuple(own[system:][: len(SHOTS.get(family, ()))]) != SHOTS.get(family, ())
        else own[:system] + own[system + len(SHOTS.get(family, ())) :]
        for own, (family, system, shown, _) in zip(said(rows_of(*plain)), prompts, strict=True)
    ]

    assert said(without_examples(rows_of(*with_front), SHOTS)) == expected


def test_examples_are_those_of_the_recipe() -> None:
    source = {"kind": "jsonl", "path": "x.jsonl"}
    sets = [
        PromptSet.model_validate({"family": "sums", "source": source, "few_shot": [{"user": "1+1?", "assistant": "2"}]}),
        PromptSet.model_validate({"family": "words", "source": source}),
    ]

    assert examples_of(sets) == {"sums": ("1+1?", "2")}


def test_a_recipe_chooses_whether_sft_shows_its_examples(recipe: Callable[..., Path], tmp_path: Path) -> None:
    """Only `sft` changes: the other views show what was sampled."""
    shots = [{"user": "Capital of Peru?", "assistant": "Lima"}]
    prompts = [
        {
            "family": "capital",
            "source": {"kind": "jsonl", "path": "prompts.jsonl"},
            "template": "Capital of {{ country }}?",
            "system": "Be brief.",
            "few_shot": shots,
        }
    ]
    path = recipe(prompts=prompts)

    def first_prompt(view: str, *changes: str) -> list[str]:
        dataset = Path(run_recipe(path, tmp_path / "run", *changes).dataset)
        (file,) = dataset.glob(f"{view}/train/*.parquet")
        prompt: list[dict[str, Any]] = pq.read_table(file)["prompt"][0].as_py()
        return [turn["content"] for turn in prompt]

    whole = ["Be brief.", "Capital of Peru?", "Lima", "Capital of France?"]
    assert first_prompt("sft") == whole
    assert first_prompt("sft", "dataset.prompt=bare") == ["Be brief.", "Capital of France?"]
    assert first_prompt("rollouts", "dataset.prompt=bare") == whole
