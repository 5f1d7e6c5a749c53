"""Decides what a file from others may do without the user's consent: have code imported, and have files outside its folder used.

Names of thresher's own filters are always allowed. `module:build`, options of vLLM that load code, and paths that leave the
folders below need one of

* `--trust-code` on the command, or THRESHER_TRUST_CODE=1 in the environment, which processes and actors inherit;
* the user's configuration: `trusted_code = ["my_package"]` (its submodules too) or `["my_package.filters:build"]`, and
  `roots = ["/data"]` for paths;
* for code, an installed package that declares it as an entry point of the group `thresher.filters`.

The configuration is the file that THRESHER_CONFIG names, else thresher/config.toml in XDG_CONFIG_HOME or ~/.config. Nothing is
imported or opened before the answer. docs/security.md says what remains.
"""

import ipaddress
import os
import re
import stat
import tomllib
from collections.abc import Iterable
from contextlib import suppress
from functools import lru_cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from fsspec.core import split_protocol
from fsspec.implementations.local import LocalFileSystem

from schemas.suggest import did_you_mean

VARIABLE, ROOT, CONFIG = "THRESHER_TRUST_CODE", "THRESHER_ROOT", "THRESHER_CONFIG"
GROUP = "thresher.filters"
"""The group of entry points whose code is trusted, because its package was installed."""
PROJECT = (".git", "pyproject.toml")
"""What marks the folder of a project."""

_OWN_CLUSTER = re.compile(r"(ray://)?(127\.\d+\.\d+\.\d+|localhost|\[::1\])(:\d+)?|auto|local")


class ConfigError(ValueError):
    """The user's configuration cannot be read. The message names the file and the key."""


class Settings(NamedTuple):
    """The user's configuration."""

    trusted_code: tuple[str, ...] = ()
    """Packages, modules and `module:name` that may be imported."""
    roots: tuple[str, ...] = ()
    """Folders and URLs that recipes may use, and in which the recipes and runs of deployments lie."""


def trusts_all() -> bool:
    """Whether the user trusts whatever this process is given."""
    return os.environ.get(VARIABLE, "") not in ("", "0")


class Consent(NamedTuple):
    """What a process allows, for those that work for it on a cluster: they have another environment, configuration and folder."""

    everything: bool = False
    settings: Settings = Settings()


def consent() -> Consent:
    """What this process allows."""
    return Consent(trusts_all(), Settings(settings().trusted_code, (*map(str, here()), *roots())))


def inherit(given: Consent) -> None:
    """Allow what the process allows that sent this one its work, in addition."""
    if given.everything:
        os.environ[VARIABLE] = "1"
    _inherited[:] = [given.settings]


def config_file() -> Path:
    """The user's configuration, which need not exist."""
    if named := os.environ.get(CONFIG):
        return Path(named)
    home = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(home) / "thresher" / "config.toml"


_inherited: list[Settings] = []


def settings() -> Settings:
    """The user's configuration, empty without a file, and what this process inherited. Raises ConfigError, which names the file
    and the key."""
    path, given = config_file(), list(_inherited)
    with suppress(FileNotFoundError, NotADirectoryError):
        given.insert(0, _read(path, path.stat().st_mtime_ns))
    return Settings(tuple(name for one in given for name in one.trusted_code), tuple(root for one in given for root in one.roots))


def roots() -> tuple[str, ...]:
    """The folders and URLs that the user allows: THRESHER_ROOT and `roots` of the configuration."""
    named = os.environ.get(ROOT)
    return (*([named] if named else []), *settings().roots)


def refused_code(name: str) -> str | None:
    """Why `module:name` may not be imported, and how to allow it; None if it may. Nothing is imported."""
    module = name.partition(":")[0]
    listed = settings().trusted_code
    if trusts_all() or name in listed or any(module == package or module.startswith(f"{package}.") for package in listed):
        return None
    if name in _installed():
        return None
    return (
        f"{name} is code that does not come with thresher, and could do whatever you can do; if you trust it, pass --trust-code "
        f'(or set {VARIABLE}=1), or write trusted_code = ["{module}"] into {config_file()}, or install a package that has it as '
        f"an entry point of the group {GROUP}"
    )


def refused_cluster(address: str | None) -> str | None:
    """Why a Ray cluster may not be joined, and how to allow it; None if it may. What a cluster sends is unpickled, so it can run
    code here. Clusters of this machine are the user's."""
    if address is None or trusts_all() or _OWN_CLUSTER.fullmatch(address) or address in roots():
        return None
    return (
        f"{address} is a cluster elsewhere, and whoever runs it could do whatever you can do here; if you trust it, pass "
        f'--trust-code (or set {VARIABLE}=1), or write roots = ["{address}"] into {config_file()}'
    )


def refused_key(variable: str, urls: Iterable[str]) -> str | None:
    """Why the value of a variable may not be sent to servers as their key, and how to allow it; None if it may: any variable to
    servers of this machine and of the user's roots, and to others one that is named as keys of servers are."""
    if trusts_all() or variable.endswith("API_KEY"):
        return None
    for url in urls:
        if not (is_loopback(urlsplit(url).hostname or "") or _is_below(url)):
            return (
                f"the value of {variable}, which is not named as an API_KEY, would be sent to {url}; if you trust that server, "
                f'pass --trust-code (or set {VARIABLE}=1), or write roots = ["{url}"] into {config_file()}'
            )
    return None


def is_loopback(host: str) -> bool:
    """Whether a host name or address is this machine."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def here() -> tuple[Path, ...]:
    """The working directory, whose files are the user's choice; none where that is the root or the home folder, in which much
    lies that is nobody's choice."""
    folder = Path.cwd()
    return () if folder in (Path("/"), Path(os.path.realpath(Path.home()))) else (folder,)


def project_of(folder: Path) -> Path:
    """The folder of the project in which a recipe's folder lies: the nearest one above, or itself, that holds .git or
    pyproject.toml. A folder that was received as a whole brings its own .git. The recipe's folder where there is none, or only
    the root, the home folder, one above that, or one in which every user may write."""
    home = os.path.realpath(Path.home())
    for above in (real := Path(os.path.realpath(folder)), *real.parents):
        if _is_inside(home, str(above)) or (above.exists() and above.stat().st_mode & stat.S_IWOTH):
            break
        if any((above / mark).exists() for mark in PROJECT):
            return above
    return folder


def refused_path(path: str | Path, *folders: Path, anywhere_here: bool = True) -> str | None:
    """Why a path may not be used, and how to allow it; None if it lies, also by the links on its way, in one of the folders, the
    user's roots, or the working directory if `anywhere_here`."""
    if trusts_all():
        return None
    named = tuple(dict.fromkeys((*folders, *(here() if anywhere_here else ()))))
    if _is_in_one(path, (*named, *roots())):
        return None
    real = os.path.realpath(path)
    elsewhere = "" if os.path.abspath(path) == real else f" (it is {real})"
    return (
        f"{path} lies outside {' and '.join(str(folder.absolute()) for folder in named) or 'your roots'}{elsewhere}; if you "
        f"trust where this comes from, pass --trust-code (or set {VARIABLE}=1), or write "
        f'roots = ["{real}"] into {config_file()}'
    )


def local_folder(place: str) -> str | None:
    """The folder on this machine that fsspec opens for a place, which may be `file:...` or `local:...`; None for another URL."""
    protocol, _ = split_protocol(place)
    return str(LocalFileSystem._strip_protocol(os.path.expanduser(place))) if protocol in (None, "file", "local") else None


def refused_place(place: str, *folders: Path) -> str | None:
    """As `refused_path`, for a folder or an fsspec URL. URLs of other machines may be used; those of several parts (`::`) not."""
    if trusts_all():
        return None
    if "::" in place:
        return f"{place} names one file system inside another, which may be this machine's; name the folder or URL itself"
    folder = local_folder(place)
    return None if folder is None else refused_path(folder, *folders)


def outside(folder: str, name: str, *, local: bool) -> str | None:
    """Why a name from an entry, a log or an index leads out of its folder, in words; None if it does not. Consent changes that
    only for links: no file that thresher wrote has such a name."""
    steps = name.split("/")
    if name.startswith("/") or ".." in steps or "://" in name or "::" in name or "\\" in name or "\0" in name:
        return f"the name {name!r} leads out of {folder}, so thresher did not write it; ask whoever made this"
    on_the_way = ("/".join(steps[: number + 1]) for number in range(len(steps)))
    if not local or trusts_all() or not any(os.path.islink(f"{folder}/{step}") for step in on_the_way):
        return None
    return refused_path(f"{folder}/{name}", Path(folder), anywhere_here=False)


def links_outside(folder: str) -> str | None:
    """Why a folder that is to be written is refused: a file or folder directly in it is a link that leads out of it. None if
    there is no such link, or no folder."""
    try:
        links = [entry.name for entry in os.scandir(folder) if entry.is_symlink()]
    except (FileNotFoundError, NotADirectoryError):
        return None
    return next((refused for name in links if (refused := outside(folder, name, local=True))), None)


def first_refused(paths: Iterable[str | Path], *folders: Path) -> str | None:
    """Why the first of these paths that may not be used is refused; None if all may be used."""
    if trusts_all():
        return None
    allowed = _real_folders((*folders, *here(), *roots()))  # once: there may be many paths
    left = (path for path in paths if not any(_is_inside(os.path.realpath(path), folder) for folder in allowed))
    return next((refused_path(path, *folders) for path in left), None)


def refused_outside_roots(place: str) -> str | None:
    """Why a deployment may not use a recipe, folder or URL: it lies in none of the user's roots, or, where there are none, not in
    the working directory. Trust in code does not change it. None if it may."""
    allowed, folder = roots() or tuple(map(str, here())), local_folder(place)
    if "::" not in place and (_is_below(place) if folder is None else _is_in_one(folder, allowed)):
        return None
    where = " and ".join(allowed) or "the roots of this machine, which has none"
    return (
        f"{place} lies outside {where}; deployments read and write in the roots: set {ROOT} where the worker runs, or write "
        f"roots = [...] into its {config_file()}"
    )


# -- inside --------------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=4)
def _read(path: Path, _changed: int) -> Settings:
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path}: thresher's configuration cannot be read: {error}; mend or remove it") from error
    for name, value in content.items():
        if name not in Settings._fields:
            hint = did_you_mean(name, Settings._fields)
            raise ConfigError(f"{path}: {name}: no such key{hint}; valid here: {', '.join(Settings._fields)}")
        if not isinstance(value, list) or not all(isinstance(item, str) and item for item in value):
            raise ConfigError(f'{path}: {name}: wanted a list of texts, such as ["one"], found {value!r}')
    return Settings(**{name: tuple(value) for name, value in content.items()})


def _installed() -> set[str]:
    """The code that installed packages declare for thresher. A package that merely lies in the working directory, which Python
    may search too, is not installed."""
    beside = os.path.realpath(os.getcwd())
    return {
        point.value.replace(" ", "")
        for point in entry_points(group=GROUP)
        if point.dist is not None and os.path.realpath(str(point.dist.locate_file(""))) != beside
    }


def _is_below(url: str) -> bool:
    """Whether a URL is one of the user's roots, or below one."""
    steps = url.split("/")
    below = any("://" in root and f"{url.rstrip('/')}/".startswith(f"{root.rstrip('/')}/") for root in roots())
    return below and ".." not in steps and "::" not in url


def _is_in_one(path: str | Path, folders: Iterable[str | Path]) -> bool:
    """Whether a path lies, also by the links on its way, in one of the folders; URLs hold none."""
    real = os.path.realpath(path)
    return any(_is_inside(real, folder) for folder in _real_folders(folders))


def _real_folders(folders: Iterable[str | Path]) -> tuple[str, ...]:
    return tuple(os.path.realpath(os.path.expanduser(folder)) for folder in folders if "://" not in str(folder))


def _is_inside(real: str, folder: str) -> bool:
    return real == folder or real.startswith(folder.rstrip("/") + "/")
