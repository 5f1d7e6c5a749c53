"""The Prefect server of schedules: missing, too old, or away."""

import contextlib
import http.server
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from helpers.prefect_server import free_port


@contextlib.contextmanager
def old_server() -> Iterator[str]:
    """What a server of Prefect 2 answers to the first questions."""

    class Answers(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = {"/api/health": b"true", "/api/admin/version": b'"2.19.0"'}.get(self.path)
            self.send_response(404 if body is None else 200)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(body or b"{}")

        def log_message(self, *_: object) -> None:
            """Nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers) as answers:
        thread = threading.Thread(target=answers.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{answers.server_port}/api"
        answers.shutdown()
        thread.join()


@pytest.mark.slow
def test_a_missing_server_is_named_with_the_command_that_starts_one(
    recipe: Callable[..., Path], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without an address, with one where nobody answers, and where an old server does."""
    from prefect.settings import PREFECT_API_URL, temporary_settings

    from thresher.cli import main

    with temporary_settings(restore_defaults={PREFECT_API_URL}):
        assert main(["schedules"]) == 1
        assert "PREFECT_API_URL is not set" in capsys.readouterr().err
    with old_server() as url, temporary_settings({PREFECT_API_URL: url}):
        assert main(["schedules"]) == 1
        said = capsys.readouterr().err
        assert f"the Prefect server at {url} (PREFECT_API_URL) is of version 2.19, wanted is 3.7 or later; upgrade it" in said
    port = free_port()
    with temporary_settings({PREFECT_API_URL: f"http://127.0.0.1:{port}/api"}):
        for command in (["schedule", str(recipe()), "--interval", "6h"], ["serve"], ["schedule", "small", "--pause"]):
            assert main(command) == 1
            said = capsys.readouterr().err
            assert f"no Prefect server at http://127.0.0.1:{port}/api" in said
            assert "prefect server start" in said


@pytest.mark.slow
def test_a_proxy_that_prefect_cannot_use_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Nor does a message show the password of the server's address."""
    from prefect.settings import PREFECT_API_URL, temporary_settings

    from thresher.cli import main

    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:9")
    with temporary_settings({PREFECT_API_URL: "http://me:hunter2@127.0.0.1:9/api"}):
        assert main(["schedules"]) == 1
    said = capsys.readouterr().err
    assert "no Prefect server at http://[password]@127.0.0.1:9/api (PREFECT_API_URL): Using SOCKS proxy" in said
    assert "or a proxy in the environment, is wrong" in said
