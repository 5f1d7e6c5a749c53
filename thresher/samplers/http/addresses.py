"""Finds the addresses of a recipe's servers: a list, the file of a fleet, or all addresses of a host name."""

import socket
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import urlsplit

from schemas.engines import HttpEngine
from thresher.errors import EngineError


def server_urls(spec: HttpEngine, base: Path) -> list[str]:
    """Return the roots of all servers of a recipe, each once. `base` is the recipe's directory.

    Raises EngineError if the file of a fleet cannot be used or a host name has no address.
    """
    urls = spec.base_urls if spec.fleet is None else fleet_urls(base / spec.fleet)
    return list(dict.fromkeys(url.rstrip("/") for url in (resolved_urls(urls) if spec.every_address else urls)))


def resolved_urls(urls: Iterable[str]) -> list[str]:
    """Return each url with all addresses of its host name, in the order of the urls, each once.

    Raises EngineError for a name without an address.
    """
    resolved: dict[str, None] = {}
    for url in urls:
        parts = urlsplit(url)
        try:
            entries = socket.getaddrinfo(parts.hostname, parts.port or 80, type=socket.SOCK_STREAM)
        except OSError as error:
            raise EngineError(f"{url}: the host name has no address ({error}); correct engine.base_urls") from error
        for address in sorted({entry[4][0] for entry in entries}):
            host = f"[{address}]" if ":" in str(address) else address
            resolved[parts._replace(netloc=f"{host}:{parts.port or 80}").geturl()] = None
    return list(resolved)


def fleet_urls(file: Path) -> list[str]:
    """Read the addresses in the file of a fleet, one per line.

    Raises EngineError if it cannot be read or lists no server.
    """
    try:
        urls = [line.strip() for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise EngineError(f"engine.fleet: {file} cannot be read ({error}); `thresher fleet` writes it") from error
    if not urls:
        raise EngineError(f"engine.fleet: {file} lists no server; wait until `thresher fleet` has added one that is ready")
    for number, line in enumerate(urls, 1):
        if not line.startswith(("http://", "https://")):
            raise EngineError(
                f"engine.fleet: {file}, line {number}: wanted an address such as http://10.0.0.1:8000/v1, found {line[:80]!r}"
            )
    return urls


def host_and_port(url: str) -> str:
    """Return `host:port`, the source recorded with each sample."""
    parts = urlsplit(url)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    return f"{host}:{parts.port or (443 if parts.scheme == 'https' else 80)}"
