"""Ids and seeds."""

from hypothesis import given
from hypothesis import strategies as st

from schemas.sample import Message
from thresher import ids

TEXTS = st.text(max_size=20)


def test_ids_are_those_of_earlier_versions() -> None:
    """A change of one of them would make every pool and release one of other samples."""
    prompt = ids.prompt_id([Message("system", "Be brief."), Message("user", "1+1?")], {"x": 2})
    source = ids.source_key("model", None, {"temperature": 1.0}, "")
    first, second = ids.sample_ids(prompt, source, [0, 1])

    assert prompt == "902cea106b7e13e7d47e2c89bb043a65"
    assert source == "cb1a006f52053fa3e88906ef855c916d"
    assert (first, second) == ("e11c373a51fcd4aa197b4ee9db8ba9ed", "8663d32c0864476bb7b6b2c1171bd83a")
    assert ids.sample_seed(first) == 4_055_225_170_376_209_706
    assert ids.engine_seed("", 1) == 1_031_396_968


@given(TEXTS, TEXTS, st.lists(st.integers(-1, 10**6), max_size=5))
def test_a_sample_id_is_the_hash_of_prompt_source_and_index(prompt: str, source: str, indices: list[int]) -> None:
    assert ids.sample_ids(prompt, source, indices) == [ids.digest("sample", prompt, source, index) for index in indices]


@given(st.lists(st.tuples(st.sampled_from(["system", "user", "assistant"]), TEXTS), max_size=3), TEXTS)
def test_a_prompt_id_depends_on_messages_and_reference(messages: list[tuple[str, str]], reference: str) -> None:
    prompt = [Message(*message) for message in messages]

    assert ids.prompt_id(prompt, reference) == ids.prompt_id(tuple(prompt), reference)
    assert ids.prompt_id(prompt, reference) != ids.prompt_id([*prompt, Message("user", "")], reference)
    assert ids.prompt_id(prompt, reference) != ids.prompt_id(prompt, [reference])


@given(st.text(alphabet="0123456789abcdef", min_size=32, max_size=32))
def test_a_seed_fits_62_bits(sample: str) -> None:
    assert 0 <= ids.sample_seed(sample) < 2**62


@given(TEXTS, st.integers(0, 1000))
def test_each_start_of_an_engine_has_another_seed(salt: str, start: int) -> None:
    assert 1 <= ids.engine_seed(salt, start) < 2**31
    assert ids.engine_seed(salt, start) != ids.engine_seed(salt, start + 1)
