"""When a finished shard has what the recipe wants."""

from dataclasses import replace
from typing import Any

import pytest

from schemas.manifest import Entry
from schemas.recipe import Recipe
from schemas.sample import Message, Prompt
from schemas.sampling import Sampling
from thresher.pool.wanted import complete, samples_of_shard, shards_of, wanted

ADAPTIVE = {"samples_per_prompt": 4, "target_hits": 2}


@pytest.mark.parametrize(
    ("before", "now", "expected"),
    [
        ({"samples_per_prompt": 4}, {"samples_per_prompt": 4}, True),
        ({"samples_per_prompt": 8}, {"samples_per_prompt": 4}, True),
        ({"samples_per_prompt": 4}, {"samples_per_prompt": 8}, False),
        ({"anchor": False}, {"anchor": True}, False),
        ({"anchor": True}, {"anchor": False}, True),
        (ADAPTIVE, ADAPTIVE, True),
        (ADAPTIVE, ADAPTIVE | {"target_hits": 1}, False),
        (ADAPTIVE, {"samples_per_prompt": 4}, False),
        ({"max_tokens": 16}, {"max_tokens": 32}, True),
    ],
)
def test_more_than_wanted_is_complete(before: dict[str, Any], now: dict[str, Any], expected: bool) -> None:
    """The sampling key covers what is not about numbers, such as max_tokens."""
    facts = {"wanted": wanted(Sampling(**before))}
    entry = Entry(path="samples/00000.parquet", rows=1, bytes=1, sha256="a", key="k", facts=facts)

    assert complete(entry, Sampling(**now)) is expected


@pytest.mark.parametrize(("max_tokens", "samples"), [(512, 2048), (16_384, 2048), (32_768, 1024), (1 << 26, 1)])
def test_a_shard_of_long_completions_has_fewer_samples(max_tokens: int, samples: int) -> None:
    recipe = Recipe(name="long", sampling=Sampling(max_tokens=max_tokens))

    assert samples_of_shard(recipe) == samples


@pytest.mark.parametrize(
    ("sampling", "models", "sizes"),
    [
        ({"samples_per_prompt": 1, "anchor": False}, 1, [4, 4, 2]),
        ({"samples_per_prompt": 1, "anchor": True}, 1, [2, 2, 2, 2, 2]),
        ({"samples_per_prompt": 1, "anchor": False, "temperature": [0.5, 1]}, 1, [2, 2, 2, 2, 2]),
        ({"samples_per_prompt": 1, "anchor": False}, 2, [2, 2, 2, 2, 2]),
        ({"samples_per_prompt": 1, "anchor": False, "target_hits": 1, "max_samples_per_prompt": 2}, 1, [2, 2, 2, 2, 2]),
        ({"samples_per_prompt": 9, "anchor": False}, 1, [1] * 10),
    ],
)
def test_a_shard_has_as_much_text_as_its_samples_repeat(sampling: dict[str, Any], models: int, sizes: list[int]) -> None:
    """Each sample has the text of its prompt: those of every temperature, model and wave, and the anchor."""
    named = {"models": [{"name": f"m{number}"} for number in range(models)]} if models > 1 else {}
    run = {"shard_bytes": 4_200 + 4 * 4 * 5}
    recipe = Recipe.model_validate({"name": "large", "sampling": {"max_tokens": 5} | sampling, "run": run} | named)
    prompts = [Prompt(f"{number}", "f", (Message("user", "\u00e9" * 500),)) for number in range(10)]
    shards = list(shards_of(prompts, recipe))

    assert [len(shard) for shard, _ in shards] == sizes
    assert [prompt for shard, _ in shards for prompt in shard] == prompts
    assert all(len(shard) == 1 or size <= recipe.run.shard_bytes for shard, size in shards)


@pytest.mark.parametrize("part", ["tools", "template", "reference", "metadata", "messages"])
def test_every_text_of_a_prompt_counts(part: str) -> None:
    """A prompt with more than a shard may have is a shard of its own, and its neighbours are not."""
    text, turn = "x" * 1000, Message("user", "?")
    values: dict[str, Any] = {
        "tools": text, "template": text, "reference": [text], "metadata": {"a": text},
        "messages": (Message("assistant", "", tool_calls=text), turn),
    }  # fmt: skip
    small = [Prompt(f"{number}", "f", (turn,)) for number in range(4)]
    large = replace(small[0], **{part: values[part]})
    recipe = Recipe.model_validate({"name": "x", "sampling": {"samples_per_prompt": 1, "anchor": False, "max_tokens": 1}})
    recipe = recipe.model_copy(update={"run": recipe.run.model_copy(update={"shard_bytes": 500})})

    assert [len(shard) for shard, _ in shards_of([*small, large, *small], recipe)] == [4, 1, 4]
