"""Whether a server makes tokens: idle, busy, hung, and one that shows no counters."""

import pytest

from helpers.fake_openai import FakeOpenAI
from helpers.http_sampler import draw, free_port, group, sampler, until
from thresher.executors.server_progress import ServerProgress


def progress_of(server: FakeOpenAI, silent_s: float = 0.2) -> ServerProgress:
    return ServerProgress(server.url.removesuffix("/v1"), "small", silent_s)


def questions(server: FakeOpenAI) -> int:
    """How often it was asked for a token."""
    return sum(body.get("prompt") == "a" for body in server.bodies)


def test_an_idle_server_makes_the_token_that_it_is_asked_for() -> None:
    with FakeOpenAI(counts="tokens") as server:
        progress = progress_of(server)
        until(lambda: progress.stalled() or questions(server) == 2)

        assert questions(server) == server.tokens_made == 2
        assert not progress.stalled()


def test_a_server_whose_counters_move_is_not_asked() -> None:
    with FakeOpenAI(counts="tokens") as server:
        progress = progress_of(server, silent_s=30)
        draw(sampler(server), [group(0)])

        assert not progress.stalled()
        assert questions(server) == 0


def test_a_server_that_makes_no_token_is_stalled() -> None:
    """Although it answers everything else."""
    with FakeOpenAI(counts="tokens") as server:
        progress = progress_of(server)
        server.stalled = True
        until(progress.stalled)

        assert questions(server) == 1


def test_the_key_of_the_machine_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_API_KEY", "a key")
    with FakeOpenAI(counts="tokens", key="a key") as server:
        progress = progress_of(server)
        until(lambda: progress.stalled() or server.tokens_made == 1)

        assert questions(server) == 1


def test_a_server_without_counters_is_not_asked() -> None:
    with FakeOpenAI() as server:
        progress = progress_of(server, silent_s=0.0)

        assert [progress.stalled() for _ in range(2)] == [False, False]
        assert questions(server) == 0


def test_a_server_that_is_gone_is_left_to_the_health_check() -> None:
    assert not ServerProgress(f"http://127.0.0.1:{free_port()}", "small", 0.0).stalled()
