"""What a server says of its model: which changes are another model, and which are noted."""

from typing import Any

import pytest

from helpers.fake_openai import FakeOpenAI
from helpers.http_sampler import collect, draw, group, sampler, until
from schemas.manifest import ServerClaims
from thresher.errors import EngineError
from thresher.samplers.http import endpoint
from thresher.samplers.http.claims import (
    ChangedServerError,
    Remembered,
    context_of,
    contradictions,
    find_card,
    read_cards,
    read_claims,
    together,
)

CARD = {"id": "small", "root": "/models/a", "owned_by": "vllm", "max_model_len": 1000, "parent": None, "created": 7}
BEFORE = read_claims(CARD, "vllm 0.32.0", "3")


def after(**changed: Any) -> ServerClaims:
    return BEFORE.model_copy(update=changed)


def test_claims_are_what_the_card_says() -> None:
    """When it was created is no claim: vLLM gives the time of the question."""
    assert BEFORE.model_dump(exclude_none=True) == {
        "model": "small",
        "root": "/models/a",
        "owned_by": "vllm",
        "max_model_len": 1000,
        "weight_version": "3",
        "versions": ("vllm 0.32.0",),
        "left_out": (),
    }
    assert read_claims({"id": "m", "max_model_len": "?", "root": 4}, "", None) == ServerClaims(model="m")


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"root": "/models/b"}, ["root was /models/a and is now /models/b"]),
        ({"weight_version": "4"}, ["weight_version was 3 and is now 4"]),
        ({"owned_by": "somebody"}, ["owned_by was vllm and is now somebody"]),
        ({"max_model_len": 999}, ["max_model_len was 1000 and is now 999"]),
        ({"max_model_len": 4000}, []),
        ({"versions": ("vllm 0.33.0",)}, []),
        ({"root": None, "weight_version": None, "max_model_len": None, "parent": "base"}, []),
    ],
    ids=["root", "weights", "owner", "shorter", "longer", "version", "unsaid"],
)
def test_only_another_model_is_a_contradiction(changed: dict[str, Any], expected: list[str]) -> None:
    assert contradictions(BEFORE, after(**changed)) == expected


def test_what_is_noted_holds_all_versions_and_what_was_said_before() -> None:
    newer = together(BEFORE, after(versions=("vllm 0.33.0",), root=None, max_model_len=4000))
    again = together(newer, after(versions=("vllm 0.33.0",)))

    assert (newer.root, newer.max_model_len, newer.versions) == ("/models/a", 4000, ("vllm 0.32.0", "vllm 0.33.0"))
    assert again.versions == newer.versions


def test_all_fields_that_were_left_out_are_noted() -> None:
    noted = together(after(left_out=("top_p",)), after(left_out=("n",)))

    assert (noted.left_out, together(noted, BEFORE).left_out) == (("n", "top_p"), ("n", "top_p"))


@pytest.mark.parametrize(
    "body",
    [{"data": [CARD]}, {"object": "list", "models": [], "data": [CARD]}, [CARD, {"id": "other"}]],
    ids=["openai", "llama.cpp", "together"],
)
def test_models_are_listed_in_an_object_or_bare(body: Any) -> None:
    assert find_card(read_cards(body), "small") == CARD
    assert find_card(read_cards(body), "smal") is None


@pytest.mark.parametrize("served", ["small", "models/small", "small:latest"])
def test_a_model_is_found_by_its_own_name(served: str) -> None:
    assert find_card({"other": {"id": "other"}, served: {"id": served}}, "small") == {"id": served}


@pytest.mark.parametrize("body", [None, {}, {"data": {}}, {"data": [3]}, {"data": [{"name": "a"}]}, [[]], "a", {"models": []}])
def test_anything_else_is_no_list_of_models(body: Any) -> None:
    with pytest.raises(ValueError, match="no list of models"):
        read_cards(body)


def test_the_context_is_read_by_all_its_names() -> None:
    cards: list[dict[str, Any]] = [
        {"max_model_len": 9},
        {"context_length": 9},
        {"context_window": 9},
        {"max_context_length": 9},
        {"meta": {"n_ctx": 9}},
    ]

    silent: list[dict[str, Any]] = [{}, {"meta": 3}, {"max_model_len": "9"}]
    assert [context_of(card) for card in cards + silent] == [9] * 5 + [0] * 3


def test_each_server_is_compared_with_itself() -> None:
    """Replicas may have the model in different directories."""
    note = Remembered()

    assert note("one:1", BEFORE) == note("two:1", after(root="/models/b")) == note("one:1", BEFORE) == []
    assert note("two:1", BEFORE) == ["root was /models/b and is now /models/a"]


# -- servers that change while samples are drawn -----------------------------------------------------------------------


def test_the_only_server_is_left_at_once_if_it_comes_back_with_another_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """It had nothing to do when it was started again, so no connection breaks. Its streams raise the error; no sample is drawn
    from the other model."""
    monkeypatch.setattr(endpoint, "IDLE_S", 0.0)
    with FakeOpenAI(card={"root": "/models/a"}) as server, sampler(server) as http, http.stream() as stream:
        stream.submit([group(0)])
        collect(stream, 1)
        port = server.port
        server.stop()
        with FakeOpenAI(card={"root": "/models/b"}, port=port) as other:
            stream.submit([group(1)])
            with pytest.raises(
                EngineError, match=rf"127.0.0.1:{port} serves another model as small .*: root was /models/a and is"
            ):
                collect(stream, 1)
        assert other.bodies == []


def test_others_take_over_from_a_server_that_comes_back_with_another_model(caplog: pytest.LogCaptureFixture) -> None:
    with (
        FakeOpenAI(delay_s=0.02, card={"root": "/models/a"}) as alive,
        FakeOpenAI(delay_s=0.02, card={"root": "/models/a"}) as changing,
        sampler(alive, changing) as http,
        http.stream() as stream,
    ):
        stream.submit([group(number, n=4) for number in range(60)])
        first = stream.take(10)
        port = changing.port
        changing.stop()
        with FakeOpenAI(card={"root": "/models/b"}, port=port, delay_s=0.5):
            drawn = first + collect(stream, 60 - len(first))
            until(lambda: f"127.0.0.1:{port} serves another model" in caplog.text)

    # What was sent to it before that was noticed is drawn again.
    assert len(alive.bodies) + len(changing.bodies) >= 60
    assert sorted(group.number for group in drawn) == list(range(60))
    assert caplog.text.count("serves another model as small") == 1


def test_weights_that_change_in_a_running_server_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """No connection breaks: a server in use is greeted again from time to time."""
    monkeypatch.setattr(endpoint, "RECHECK_S", 0.0)
    with FakeOpenAI(weight_version="1") as server, sampler(server) as http, http.stream() as stream:
        stream.submit([group(0)])
        collect(stream, 1)
        server.weight_version = "2"
        stream.submit([group(1)])
        with pytest.raises(EngineError, match=r"weight_version was 1 and is now 2"):
            collect(stream, 1)

    assert len(server.bodies) == 1


def test_a_server_that_comes_back_the_same_is_used_again() -> None:
    """A later version of its software is no other model."""
    with FakeOpenAI(card={"root": "/models/a"}) as server, sampler(server) as http, http.stream() as stream:
        stream.submit([group(0)])
        collect(stream, 1)
        port = server.port
        server.stop()
        with FakeOpenAI(card={"root": "/models/a"}, version="0.33.0", port=port):
            stream.submit([group(1)])
            [drawn] = collect(stream, 1)

    assert len(drawn.completions) == 2


def test_what_a_server_refuses_is_not_sent_again_after_a_greeting(monkeypatch: pytest.MonkeyPatch) -> None:
    """A gateway in front of vLLM passes only OpenAI's fields."""
    monkeypatch.setattr(endpoint, "RECHECK_S", 0.0)

    def gateway(number: int, body: dict[str, Any]) -> Any:
        return (400, {}, "unrecognized request argument: min_p") if "min_p" in body else None

    with FakeOpenAI(misbehave=gateway) as server, sampler(server) as http, http.stream() as stream:
        for number in range(4):
            stream.submit([group(number)])
            collect(stream, 1)

    assert server.lists_of_models > 4
    assert sum("min_p" in body for body in server.bodies) == 2  # a prompt, and a short one in its place


# -- adapters ----------------------------------------------------------------------------------------------------------


def test_an_adapter_of_another_base_model_is_refused() -> None:
    with (
        FakeOpenAI(models=("big", "small"), card={"parent": "big"}) as server,
        pytest.raises(EngineError, match=r"small is an adapter of big, not of base; set model.name to big, or"),
    ):
        draw(sampler(server, base_model="base"), [])


def test_requests_name_the_adapter() -> None:
    with FakeOpenAI(card={"parent": "base"}) as server:
        draw(sampler(server, base_model="base"), [group(0)])

    assert {body["model"] for body in server.bodies} == {"small"}


def test_an_error_of_a_changed_server_is_one_of_engines() -> None:
    """Callers that handle EngineError handle it too."""
    assert issubclass(ChangedServerError, EngineError)
