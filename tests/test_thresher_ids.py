"""Ids and seeds come from content alone."""

import itertools

from schemas.sample import Message
from thresher import ids

MESSAGES = (Message("system", "Be brief."), Message("user", "What is 2 + 2?"))


def test_sample_ids_are_digests_of_prompt_source_and_index() -> None:
    assert ids.sample_ids("prompt", "source", [-1, 0, 70_000]) == [
        ids.digest("sample", "prompt", "source", index) for index in (-1, 0, 70_000)
    ]


def test_a_prompt_is_identified_by_its_messages_and_its_reference() -> None:
    prompt = ids.prompt_id(MESSAGES, {"a": 1, "b": 2})

    assert ids.prompt_id(MESSAGES, {"b": 2, "a": 1}) == prompt
    assert ids.prompt_id(MESSAGES, {"a": 1, "b": 3}) != prompt
    assert ids.prompt_id(MESSAGES[::-1], {"a": 1, "b": 2}) != prompt
    assert ids.prompt_id([Message("system", "Be brief.What"), Message("user", " is 2 + 2?")], {"a": 1, "b": 2}) != prompt


def test_text_that_is_no_utf8_has_an_id() -> None:
    assert len(ids.digest("\ud800")) == 32


def test_seeds_are_in_range_and_not_consecutive() -> None:
    seeds = sorted(ids.sample_seed(sample) for sample in ids.sample_ids("prompt", "source", range(2000)))

    assert 0 <= seeds[0] < seeds[-1] < 2**62
    assert min(after - before for before, after in itertools.pairwise(seeds)) > 1


def test_every_start_of_an_engine_has_another_seed() -> None:
    seeds = [ids.engine_seed(salt, start) for salt in ("", "night") for start in range(1, 100)]

    assert len(set(seeds)) == len(seeds)
    assert all(1 <= seed < 2**31 for seed in seeds)


def test_adapter_and_template_change_the_key_of_a_source() -> None:
    """Where there is neither, the key is that of model, parameters and salt."""
    plain = ids.source_key("m", "abc", {"top_p": 1.0}, "")
    others = [ids.source_key("m", "abc", {"top_p": 1.0}, "", **{name: "x"}) for name in ("adapter", "template")]

    assert plain == ids.digest("source", "m", "abc", {"top_p": 1.0}, "")
    assert len({plain, *others}) == 3
