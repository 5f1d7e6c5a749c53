"""Arguments that several commands share."""

import argparse

import pytest

from thresher.cli.arguments import add_command, add_formats, add_overrides, add_recipe, require_at_least, require_positive
from thresher.errors import ThresherError


@pytest.fixture
def command() -> argparse.ArgumentParser:
    return argparse.ArgumentParser()


def test_a_command_knows_its_function_and_whether_it_shows_the_log() -> None:
    program = argparse.ArgumentParser()
    commands = program.add_subparsers()
    add_command(commands, "quiet", lambda options: 3, "Do this.")
    add_command(commands, "loud", lambda options: 4, "Do that.", shows_log=True)
    quiet, loud = program.parse_args(["quiet"]), program.parse_args(["loud", "--verbose"])

    assert (quiet.command(quiet), quiet.shows_log, quiet.verbose) == (3, False, False)
    assert (loud.command(loud), loud.shows_log, loud.verbose) == (4, True, True)


def test_overrides_are_kept_in_order(command: argparse.ArgumentParser) -> None:
    add_recipe(command)

    options = command.parse_args(["r.yaml", "--set", "a=1", "--set", "b.c=2"])
    assert (options.recipe, options.overrides) == ("r.yaml", ["a=1", "b.c=2"])


def test_no_overrides_are_an_empty_list(command: argparse.ArgumentParser) -> None:
    add_overrides(command)

    assert command.parse_args([]).overrides == []


def test_json_and_csv_exclude_each_other(command: argparse.ArgumentParser, capsys: pytest.CaptureFixture[str]) -> None:
    add_formats(command)

    assert command.parse_args(["--csv"]).csv
    with pytest.raises(SystemExit):
        command.parse_args(["--csv", "--json"])
    assert "not allowed with argument" in capsys.readouterr().err


@pytest.mark.parametrize(("value", "refused"), [(1, True), (2, False)])
def test_a_number_below_its_minimum_is_refused(value: int, refused: bool) -> None:
    options = argparse.Namespace(at_once=value)

    if refused:
        with pytest.raises(ThresherError, match=r"^--at-once: must be 2 or more, found 1$"):
            require_at_least(options, "at_once", 2)
    else:
        require_at_least(options, "at_once", 2)


@pytest.mark.parametrize("value", [0, -1.5])
def test_a_number_that_must_be_positive_is_refused(value: float) -> None:
    with pytest.raises(ThresherError, match=f"^--file-mb: must be above 0, found {value:g}$"):
        require_positive(argparse.Namespace(file_mb=value), "file_mb")
