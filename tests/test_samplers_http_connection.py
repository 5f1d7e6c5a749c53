"""Connections to a server: the key is in no message, and a local server is reached without a proxy."""

import asyncio
import logging

import pytest

from helpers.fake_openai import FakeOpenAI
from helpers.http_sampler import draw, free_port, group, sampler
from schemas.engines import HttpEngine
from thresher.errors import EngineError
from thresher.samplers.http.connection import FIRST_LIMIT, AttemptError, Connection, RateLimit, read_key


def test_the_key_is_in_no_message(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("SOME_KEY", "sk-secret-1")
    errors: list[BaseException] = []
    with FakeOpenAI(key="another") as server:
        with pytest.raises(EngineError, match=r"status 401: the key in the environment variable SOME_KEY is refused") as refused:
            draw(sampler(server, api_key_env="SOME_KEY"), [])
        errors.append(refused.value)
    with FakeOpenAI(key="sk-secret-1", misbehave=lambda number, body: (418, {}, "your key sk-secret-1 is odd")) as server:
        http = sampler(server, api_key_env="SOME_KEY")
        with pytest.raises(EngineError, match=r"status 418: your key \[key\] is odd") as odd:
            draw(http, [group(0)])
        errors += [odd.value, RuntimeError(repr(http), repr(http.facts), repr(read_key("SOME_KEY")))]
    with FakeOpenAI(key="sk-secret-1", misbehave=lambda number, body: "cut" if number < 6 else None) as server:
        draw(sampler(server, api_key_env="SOME_KEY"), [group(0)])
    monkeypatch.setenv("SOME_KEY", "sk-secret-1\nX-Other: 1")
    with pytest.raises(EngineError, match="characters that no key has") as malformed:
        sampler("http://127.0.0.1:1/v1", api_key_env="SOME_KEY")
    errors.append(malformed.value)

    assert "sk-secret" not in caplog.text + "".join(repr(error) + repr(error.__cause__) for error in errors)


@pytest.mark.parametrize(
    ("variable", "message"),
    [
        (None, "it needs a key; name the environment variable that holds it with engine.api_key_env"),
        ("SPECIAL_KEY", "environment variable SPECIAL_KEY is empty"),
    ],
)
def test_a_missing_key_is_named(variable: str | None, message: str) -> None:
    with FakeOpenAI(key="wanted") as server, pytest.raises(EngineError, match=message):
        draw(sampler(server, api_key_env=variable), [])


def test_a_key_over_plain_http_is_warned_about(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Not on this machine."""
    monkeypatch.setenv("SOME_KEY", "sk-secret-1")

    async def opened(url: str) -> None:
        spec = HttpEngine(kind="openai_http", base_urls=(url,))
        await Connection(url, spec, read_key("SOME_KEY")).close()

    for url in ("http://127.0.0.1:1/v1", "https://api.example/v1", "http://api.example/v1"):
        asyncio.run(opened(url))

    assert [record.getMessage() for record in caplog.records] == [
        "http://api.example/v1: the key of SOME_KEY is sent unencrypted; use https"
    ]


def test_a_loopback_server_is_reached_without_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")
    with FakeOpenAI() as server:
        assert len(draw(sampler(server), [group(0)])) == 1


def test_a_broken_connection_is_worth_another_attempt() -> None:
    async def attempt() -> None:
        url = f"http://127.0.0.1:{free_port()}/v1"
        connection = Connection(url, HttpEngine(kind="openai_http", base_urls=(url,)), read_key(None))
        try:
            await connection.get(f"{url}/models", 5.0)
        finally:
            await connection.close()

    with pytest.raises(AttemptError, match="ClientConnectorError") as caught:
        asyncio.run(attempt())
    assert (caught.value.kind, caught.value.wait_s) == ("cut", 0.0)


# -- the rate ----------------------------------------------------------------------------------------------------------


def test_the_limit_doubles_per_round_until_the_first_refusal() -> None:
    rate = RateLimit(100)
    for _ in range(int(FIRST_LIMIT)):
        rate.grow()
    assert rate.limit == 2 * FIRST_LIMIT
    rate.shrink(sent_at=1.0, now=2.0)
    assert rate.limit == FIRST_LIMIT
    for _ in range(int(FIRST_LIMIT)):
        rate.grow()

    assert FIRST_LIMIT + 0.9 < rate.limit < FIRST_LIMIT + 1


def test_requests_that_were_in_flight_together_shrink_the_limit_once() -> None:
    rate = RateLimit(100)
    for sent_at in (1.0, 1.5, 2.0):
        rate.shrink(sent_at, now=2.0)
    assert rate.limit == FIRST_LIMIT / 2
    rate.shrink(sent_at=2.5, now=3.0)
    assert rate.limit == FIRST_LIMIT / 4
    for number in range(10):
        rate.shrink(sent_at=4.0 + number, now=4.5 + number)

    assert rate.limit == 1.0


def test_the_limit_stays_within_the_recipes() -> None:
    rate = RateLimit(3)
    rate.grow()

    assert (rate.limit, RateLimit(1000).limit) == (3, FIRST_LIMIT)


def test_pauses_do_not_shorten_each_other() -> None:
    rate = RateLimit(3)
    rate.pause(10.0)
    rate.pause(5.0)

    assert rate.paused_until == 10.0
