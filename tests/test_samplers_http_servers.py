"""A run on a server of each dialect: what it refuses is left out, and one prompt that it refuses costs itself."""

from typing import Any

import pytest

from helpers.dialect_servers import SERVERS, Served
from helpers.docs import ROOT
from helpers.fake_openai import FakeOpenAI
from helpers.http_sampler import collect, draw, group, sampler
from schemas.manifest import ServerClaims
from thresher.errors import EngineError
from thresher.samplers.http import dialects
from thresher.samplers.http.dialects import DIALECTS
from thresher.samplers.sampler import NEUTRAL

ALL = pytest.mark.parametrize("name", SERVERS)
HOSTED = [name for name, served in SERVERS.items() if served.host is not None]


def fake(served: Served, **further: Any) -> FakeOpenAI:
    def misbehave(number: int, body: dict[str, Any]) -> Any:
        if (refused := served.refuse(body)) is not None:
            return refused[0], {}, refused[1]
        status, answer = served.refused_prompt
        return (status, {}, answer) if body["messages"][0]["content"] == "prompt 2" else None

    return FakeOpenAI(
        listing=served.listing, misbehave=misbehave, shape=served.shape, told=served.told, prefix=served.prefix, **further
    )


def draw_all(served: Served, server: FakeOpenAI) -> tuple[Any, list[ServerClaims]]:
    """Draw four prompts, the third of which is refused. Returns the facts of the engine, and what was noted."""
    noted: list[ServerClaims] = []

    def note(source: str, claims: ServerClaims) -> list[str]:
        noted.append(claims)
        return []

    with sampler(server, check=served.check, note=note) as http, http.stream() as stream:
        stream.submit([group(number, n=3) for number in range(4)])
        drawn = collect(stream, 4)
    for answer in (drawn[0], drawn[1], drawn[3]):
        assert (answer.error, len(answer.completions), answer.refused) == (None, 3, False)
        assert {completion.finish_reason for completion in answer.completions} <= {"stop", "length"}
        assert all((completion.logprobs is not None) is served.logprobs for completion in answer.completions)
    assert (drawn[2].completions, drawn[2].refused, drawn[2].source) == ((), True, f"127.0.0.1:{server.port}")
    assert served.words in (drawn[2].error or "")
    return http.facts, noted


@ALL
def test_a_server_gets_what_it_takes_and_a_bad_prompt_costs_itself(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    served = SERVERS[name]
    if served.host is not None:
        monkeypatch.setattr(dialects, "DIALECT_OF_HOST", {"127.0.0.1": DIALECTS[name]})
    with fake(served) as server:
        facts, noted = draw_all(served, server)

    assert (facts.version, facts.context) == (served.version, served.context)
    assert noted[-1].left_out == served.left_out
    last = server.bodies[-1]
    neutral = {field for field in NEUTRAL if field not in dialects.VLLM_SAMPLING} - {*served.lacks, *served.left_out}
    assert all(last[field] == NEUTRAL[field] for field in neutral)
    assert not set(last) & ({*served.lacks, *served.left_out} - {"n"})
    assert {body["n"] for body in server.bodies if body["messages"][0]["content"] == "prompt 3"} >= {3 if served.gives_n else 1}


@pytest.mark.parametrize("name", [name for name in HOSTED if name not in ("Together", "Anthropic")])
def test_what_a_hosted_server_refuses_is_learnt_without_its_name(name: str) -> None:
    """Behind a proxy, say. What Together and Anthropic ignore or understand otherwise cannot be learnt."""
    served = SERVERS[name]
    with fake(served) as server:
        facts, noted = draw_all(served, server)

    assert facts.version == "unknown"
    assert noted[-1].left_out in (served.left_out, tuple(name for name in served.left_out if name != "n"))


def test_every_dialect_has_a_server_and_a_row_of_the_docs() -> None:
    page = (ROOT / "docs/servers.md").read_text()

    assert list(SERVERS) == list(DIALECTS)
    assert all(f"| {name} |" in page for name in DIALECTS)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"temperature": 0.0}, r"the recipe needs temperature 0.0: set sampling.temperature to 1, and sampling.anchor to false"),
        ({"top_p": 0.9}, r"'top_p' is not supported with this model.; the recipe needs top_p 0.9: remove sampling.top_p"),
    ],
    ids=["temperature", "top_p"],
)
def test_what_the_recipe_needs_is_never_left_out(parameters: dict[str, Any], message: str) -> None:
    with fake(SERVERS["OpenAI"]) as server, pytest.raises(EngineError, match=message):
        draw(sampler(server), [group(0, **parameters)])


def test_a_server_that_ignores_seeds_is_not_sent_any(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dialects, "DIALECT_OF_HOST", {"127.0.0.1": DIALECTS["Anthropic"]})
    with fake(SERVERS["Anthropic"]) as server, pytest.raises(EngineError, match=r"takes no seeds; set sampling.seeds to engine"):
        draw(sampler(server, seeds="sample", check="none"), [group(0)])


# -- engine.check ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("listing", [404, {"data": [{"id": "gpt-4o"}]}, {"choices": []}], ids=["missing", "no alias", "no list"])
def test_a_server_without_a_list_that_names_the_model_says_which_setting_helps(listing: Any) -> None:
    with FakeOpenAI(listing=listing) as server:
        with pytest.raises(EngineError, match=r"set engine.check to completion"):
            draw(sampler(server), [])
        [drawn] = draw(sampler(server, check="completion"), [group(0)])
        assert (len(drawn.completions), server.bodies[0]["messages"][0]["content"]) == (2, "Hello")
        server.bodies.clear()
        [drawn] = draw(sampler(server, check="none"), [group(1)])

    assert (len(drawn.completions), len(server.bodies), server.lists_of_models) == (2, 1, 1)


def test_a_completion_tells_that_a_server_cannot_be_used() -> None:
    with (
        FakeOpenAI(listing=404, misbehave=lambda *_: (404, {}, "no such model")) as server,
        pytest.raises(EngineError, match="status 404: no such model"),
    ):
        draw(sampler(server, check="completion"), [])
    with (
        FakeOpenAI(listing=404, misbehave=lambda *_: 503) as server,
        pytest.raises(EngineError, match=r"no server can be reached \(POST .*/chat/completions: status 503: no\)"),
    ):
        draw(sampler(server, check="completion"), [])
