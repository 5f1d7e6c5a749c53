import pytest

from schemas.suggest import did_you_mean


@pytest.mark.parametrize(
    ("name", "hint"),
    [("temprature", "; did you mean temperature?"), ("batch", ""), (None, "")],
    ids=["close", "not close", "no name"],
)
def test_only_a_close_name_is_suggested(name: str | None, hint: str) -> None:
    assert did_you_mean(name, iter(["temperature", "seed"])) == hint


def test_several_names_are_suggested_the_closest_first() -> None:
    assert did_you_mean("max_tokns", ["max_seqs", "max_tokens", "tokens"], most=2) == "; did you mean max_tokens or tokens?"


def test_without_a_cutoff_the_closest_name_is_always_suggested() -> None:
    assert did_you_mean("small", ["large", "smell"], cutoff=0) == "; did you mean smell?"
    assert not did_you_mean("small", [], cutoff=0)
