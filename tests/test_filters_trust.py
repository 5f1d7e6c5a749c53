"""What may be imported and used without consent, and the three ways to allow it."""

from importlib.metadata import Distribution, EntryPoint
from pathlib import Path
from typing import Any

import pytest
from fsspec.implementations.local import LocalFileSystem

from filters import engine_options, trust


@pytest.fixture(autouse=True)
def untrusting(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """No consent of any kind; returns the configuration, which is not there yet."""
    monkeypatch.delenv(trust.VARIABLE)
    monkeypatch.delenv(trust.ROOT)
    monkeypatch.setenv(trust.CONFIG, str(tmp_path / "config.toml"))
    return tmp_path / "config.toml"


def test_code_is_refused_with_the_three_ways_to_allow_it() -> None:
    refused = trust.refused_code("own.filters:build")

    assert refused is not None
    for words in (
        "own.filters:build",
        "--trust-code",
        trust.VARIABLE,
        'trusted_code = ["own.filters"]',
        "config.toml",
        trust.GROUP,
    ):
        assert words in refused


def test_thresher_s_own_modules_are_no_exception() -> None:
    """Else a recipe could call any function of thresher with a mapping of its choice."""
    assert trust.refused_code("filters.base:Filter")
    assert trust.refused_code("os:system")


@pytest.mark.parametrize("listed", ["own", "own.filters", "own.filters:build"])
def test_the_configuration_allows_code(untrusting: Path, listed: str) -> None:
    untrusting.write_text(f'trusted_code = ["{listed}"]\n')

    assert trust.refused_code("own.filters:build") is None
    assert trust.refused_code("owner.filters:build")
    assert trust.refused_code("other:build")


@pytest.mark.parametrize(("value", "is_trusted"), [("1", True), ("0", False), ("", False)])
def test_the_variable_allows_everything(monkeypatch: pytest.MonkeyPatch, value: str, is_trusted: bool) -> None:
    monkeypatch.setenv(trust.VARIABLE, value)

    assert (trust.refused_code("own:build") is None) is is_trusted
    assert (engine_options.refused({"worker_cls": "own.Worker"}) is None) is is_trusted
    assert (trust.refused_path("/etc/passwd", Path("/srv")) is None) is is_trusted


def test_an_installed_entry_point_allows_its_code(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """But not one that lies in the working directory, where a stranger may have put it."""

    class Found(Distribution):
        def __init__(self, folder: Path) -> None:
            self.folder = folder

        def read_text(self, filename: str) -> str | None:
            return None

        def locate_file(self, path: Any) -> Any:
            return self.folder / path

    def point(name: str, folder: Path) -> EntryPoint:
        return EntryPoint(name, f"{name}:build", trust.GROUP)._for(Found(folder))  # type: ignore[attr-defined,no-any-return]

    monkeypatch.chdir(tmp_path)
    points = (point("installed", tmp_path / "site-packages"), point("beside", tmp_path))
    monkeypatch.setattr(trust, "entry_points", lambda group: points if group == trust.GROUP else ())

    assert trust.refused_code("installed:build") is None
    assert trust.refused_code("installed:other")
    assert trust.refused_code("beside:build")


def test_a_cluster_elsewhere_needs_consent(untrusting: Path) -> None:
    """What it sends is unpickled. Those of this machine are the user's."""
    for address in (None, "auto", "127.0.0.1:6379", "ray://localhost:10001"):
        assert trust.refused_cluster(address) is None
    assert "--trust-code" in (trust.refused_cluster("ray://head:10001") or "")
    assert trust.refused_cluster("127.0.0.1.elsewhere:1")
    untrusting.write_text('roots = ["ray://head:10001"]\n')
    assert trust.refused_cluster("ray://head:10001") is None


def test_only_keys_of_servers_are_sent_to_servers_elsewhere(untrusting: Path) -> None:
    """A recipe names the server and the variable: without this it could fetch any secret of the environment."""
    assert trust.refused_key("OPENAI_API_KEY", ["https://elsewhere/v1"]) is None
    assert trust.refused_key("HF_TOKEN", ["http://127.0.0.1:8000/v1", "http://localhost:1/v1"]) is None
    assert "https://elsewhere/v1" in (trust.refused_key("HF_TOKEN", ["http://127.0.0.1:8000/v1", "https://elsewhere/v1"]) or "")
    for url in (
        "https://localhost@elsewhere/v1",
        "http://127.evil.example/v1",
        "http://127.0.0.1.evil.example",
        "http://localhost.x",
    ):
        assert trust.refused_key("HF_TOKEN", [url]), url
    untrusting.write_text('roots = ["https://elsewhere/v1"]\n')
    assert trust.refused_key("HF_TOKEN", ["https://elsewhere/v1"]) is None
    assert trust.refused_key("HF_TOKEN", ["https://elsewhere/v12"])


def test_loopback_addresses_are_recognised() -> None:
    hosts = {"localhost": True, "127.0.0.9": True, "::1": True, "10.0.0.1": False, "a.example": False, "127.a.example": False}
    assert {host: trust.is_loopback(host) for host in hosts} == hosts


def test_a_place_is_judged_as_fsspec_opens_it(tmp_path: Path) -> None:
    """Its prefixes for this machine, and URLs inside others."""
    for place in ("/etc/x", "file:/etc/x", "local:/etc/x", "file:///etc/x", "local:///etc/x", "~/../../etc/x"):
        assert "lies outside" in (trust.refused_place(place, tmp_path) or ""), place
        assert Path(LocalFileSystem._strip_protocol(place)) == Path(trust.local_folder(place) or "")
    assert trust.refused_place("simplecache::/etc/x", tmp_path)
    assert trust.refused_place("s3://bucket/x", tmp_path) is None
    assert trust.refused_place(f"file://{tmp_path}/x", tmp_path) is None


@pytest.mark.parametrize("mark", trust.PROJECT)
def test_a_recipe_may_use_the_files_of_its_project(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, mark: str) -> None:
    """But no folder that holds everything, or that every user may write, becomes a project, whatever lies in it."""
    project, recipes = tmp_path / "project", tmp_path / "project" / "data" / "recipes"
    recipes.mkdir(parents=True)
    assert trust.project_of(recipes) == recipes
    (project / mark).mkdir()
    assert trust.project_of(recipes) == project
    (tmp_path / "link").symlink_to(recipes)
    assert trust.project_of(tmp_path / "link") == project
    (recipes / mark).mkdir()
    assert trust.project_of(recipes) == recipes
    (recipes / mark).rmdir()

    for home in (project, recipes):
        monkeypatch.setenv("HOME", str(home))
        assert trust.project_of(recipes) == recipes
    monkeypatch.setenv("HOME", "/nowhere")
    project.chmod(0o777)
    assert trust.project_of(recipes) == recipes


def test_a_path_is_judged_by_where_it_really_leads(tmp_path: Path, untrusting: Path) -> None:
    home, elsewhere = tmp_path / "home", tmp_path / "elsewhere"
    home.mkdir()
    elsewhere.mkdir()
    (home / "link").symlink_to(elsewhere)

    assert trust.refused_path(home / "data" / "*.jsonl", home) is None
    for path in (elsewhere / "x", home / ".." / "elsewhere" / "x", home / "link" / "x", f"{home}-2/x"):
        refused = trust.refused_path(path, home)
        assert refused is not None
        assert "--trust-code" in refused
    assert f'roots = ["{elsewhere / "x"}"]' in (trust.refused_path(elsewhere / "x", home) or "")  # and no more than that
    untrusting.write_text(f'roots = ["{elsewhere}"]\n')
    assert trust.refused_path(home / "link" / "x", home) is None


def test_the_working_directory_is_the_user_s_choice_unless_it_holds_everything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, work = tmp_path / "home", tmp_path / "home" / "work"
    work.mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home))

    for folder, allowed in ((work, True), (home, False), (Path("/"), False)):
        monkeypatch.chdir(folder)
        assert (trust.refused_path(work / "x", Path("/elsewhere")) is None) is allowed
        assert (trust.refused_outside_roots(str(work / "x")) is None) is allowed


@pytest.mark.parametrize("name", ["../x", "a/../../x", "/etc/passwd", "s3://b/x", "zip://x::y", "a\\..\\x", "a\0b"])
def test_a_name_that_leads_out_of_its_folder_is_refused_whatever_is_trusted(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(trust.VARIABLE, "1")

    assert trust.outside("/run", name, local=False)
    assert trust.outside("/run", "samples/00000.parquet", local=False) is None


def test_links_out_of_a_folder_are_refused_before_it_is_written(tmp_path: Path) -> None:
    run = tmp_path / "run"
    (run / "inside").mkdir(parents=True)
    (run / "also").symlink_to(run / "inside")
    assert trust.links_outside(str(run)) is None
    (run / "samples").symlink_to(tmp_path)
    assert "samples" in (trust.links_outside(str(run)) or "")
    assert trust.links_outside(str(tmp_path / "missing")) is None


def test_a_configuration_in_error_names_file_and_key(untrusting: Path) -> None:
    untrusting.write_text("trusted_cod = []\n")
    with pytest.raises(trust.ConfigError, match=r"config\.toml: trusted_cod: no such key; did you mean trusted_code"):
        trust.settings()
    untrusting.write_text('roots = "/data"\n')
    with pytest.raises(trust.ConfigError, match=r"roots: wanted a list of texts"):
        trust.settings()
    untrusting.write_text("roots = [\n")
    with pytest.raises(trust.ConfigError, match="cannot be read"):
        trust.settings()


def test_the_configuration_is_where_xdg_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv(trust.CONFIG)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert trust.config_file() == tmp_path / "thresher" / "config.toml"
    monkeypatch.delenv("XDG_CONFIG_HOME")
    assert trust.config_file() == Path.home() / ".config" / "thresher" / "config.toml"


def test_deployments_stay_in_the_roots(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, untrusting: Path) -> None:
    """Whatever code is trusted: without roots, in the working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(trust.VARIABLE, "1")
    assert trust.refused_outside_roots("recipes/sums.yaml") is None
    assert trust.ROOT in (trust.refused_outside_roots("/etc/passwd") or "")
    assert trust.refused_outside_roots("../x")
    assert trust.refused_outside_roots("s3://bucket/runs")

    untrusting.write_text('roots = ["s3://bucket/runs", "/recipes"]\n')
    assert trust.refused_outside_roots("s3://bucket/runs/sums") is None
    assert trust.refused_outside_roots("/recipes/sums.yaml") is None
    for place in ("file:/etc/x", "local:/etc/x", "file:///etc/x", "simplecache::/etc/x", "simplecache::/recipes/x", "git:///etc"):
        assert trust.refused_outside_roots(place), place
    assert trust.refused_outside_roots("file:///recipes/x") is None
    for place in ("s3://bucket/runs2", "s3://bucket/runs/../x", "s3://other", "recipes/sums.yaml", "file::s3://bucket/runs/x"):
        assert trust.refused_outside_roots(place), place


def test_a_process_on_a_cluster_allows_what_its_sender_allows(
    untrusting: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It has neither its environment and configuration, nor its folder."""
    monkeypatch.setattr(trust, "_inherited", [])
    monkeypatch.setenv(trust.VARIABLE, "0")
    untrusting.write_text('trusted_code = ["own"]\nroots = ["/data"]\n')
    monkeypatch.chdir(tmp_path)
    sent, all_of_it = trust.consent(), trust.Consent(everything=True)
    untrusting.write_text('trusted_code = ["other"]\n')
    monkeypatch.chdir("/")

    assert trust.refused_code("own:build")
    trust.inherit(sent)
    assert [trust.refused_code(name) for name in ("own:build", "other:build")] == [None, None]
    assert [trust.refused_path(path) for path in ("/data/x", tmp_path / "x")] == [None, None]
    assert trust.refused_code("third:build")
    trust.inherit(all_of_it)
    assert trust.refused_code("third:build") is None
