"""The addresses of servers: host names with several addresses, and the file of a fleet."""

import socket
from pathlib import Path
from typing import Any

import pytest

from schemas.engines import HttpEngine
from thresher.errors import EngineError
from thresher.samplers.http.addresses import fleet_urls, host_and_port, resolved_urls, server_urls


def test_a_host_name_is_replaced_by_all_its_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each address once, in a fixed order."""

    def look_up(host: Any, *_: Any, **__: Any) -> Any:
        assert host == "replicas.example"
        return [
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 8000)) for address in ("127.0.0.2", "127.0.0.1", "127.0.0.2")
        ] + [(socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("::1", 8000, 0, 0))]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    url = "http://replicas.example:8000/v1"

    assert resolved_urls([url]) == ["http://127.0.0.1:8000/v1", "http://127.0.0.2:8000/v1", "http://[::1]:8000/v1"]
    assert resolved_urls([url, url]) == resolved_urls([url])
    spec = HttpEngine(kind="openai_http", base_urls=(url,), every_address=True)
    assert server_urls(spec, Path()) == resolved_urls([url])


def test_a_host_name_without_an_address_is_an_error() -> None:
    spec = HttpEngine(kind="openai_http", base_urls=("http://nobody.invalid:8000/v1",), every_address=True)
    with pytest.raises(EngineError, match="the host name has no address"):
        server_urls(spec, Path())


def test_every_address_and_https_contradict_each_other() -> None:
    with pytest.raises(ValueError, match="every_address"):
        HttpEngine(kind="openai_http", base_urls=("https://replicas.example/v1",), every_address=True)


def test_base_urls_are_listed_once_and_without_a_final_slash() -> None:
    spec = HttpEngine(kind="openai_http", base_urls=("http://a:1/v1/", "http://b:1/v1", "http://a:1/v1"))

    assert server_urls(spec, Path()) == ["http://a:1/v1", "http://b:1/v1"]


def test_the_file_of_a_fleet_has_one_address_per_line(tmp_path: Path) -> None:
    file = tmp_path / "fleet"
    spec = HttpEngine(kind="openai_http", fleet="fleet")

    with pytest.raises(EngineError, match="cannot be read"):
        fleet_urls(file)
    file.write_text("\n")
    with pytest.raises(EngineError, match="lists no server"):
        fleet_urls(file)
    file.write_text("http://10.0.0.1:8000/v1\n\n10.0.0.2:8000\n")
    with pytest.raises(EngineError, match=r"line 2: wanted an address .* found '10\.0\.0\.2:8000'"):
        fleet_urls(file)
    file.write_text(" http://10.0.0.1:8000/v1 \nhttp://10.0.0.2:8000/v1\n")
    assert fleet_urls(file) == ["http://10.0.0.1:8000/v1", "http://10.0.0.2:8000/v1"]
    assert server_urls(spec, tmp_path) == fleet_urls(file)


@pytest.mark.parametrize(
    ("url", "source"),
    [
        ("http://a/v1", "a:80"),
        ("https://api.example/v1", "api.example:443"),
        ("http://127.0.0.1:8000/v1", "127.0.0.1:8000"),
        ("http://[::1]:8000/v1", "[::1]:8000"),
    ],
)
def test_the_source_of_samples_is_host_and_port(url: str, source: str) -> None:
    assert host_and_port(url) == source
