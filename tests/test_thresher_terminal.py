"""What is printed cannot act on a terminal."""

import logging

import pytest

from thresher.cli import main
from thresher.terminal import open_console, visible

ACTING = "\x1b[31m\x9b31m\u202e\r\x07\x00\ud800"


def test_acting_characters_become_escapes_and_spaces_stay() -> None:
    assert visible(ACTING) == "\\x1b[31m\\x9b31m\\u202e\\r\\x07\\x00\\ud800"
    assert visible("größer 1\u202f000\tx\n") == "größer 1\u202f000\tx\n"


def test_a_console_shows_them_as_escapes(capsys: pytest.CaptureFixture[str]) -> None:
    open_console().print(ACTING[:-1], markup=False, soft_wrap=True)

    assert capsys.readouterr().out == "\\x1b[31m\\x9b31m\\u202e\\x00\n"  # rich leaves \r and \x07 out


def test_errors_of_the_command_line_and_logs_show_them_as_escapes(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(SystemExit):
        main(["check", "x", ACTING])
    assert "\x1b" not in capsys.readouterr().err
    before = logging.getLogRecordFactory()
    assert main(["check", f"none{ACTING[:5]}"]) == 1
    logging.getLogger("other").warning("a server says %s", ACTING)
    logging.setLogRecordFactory(before)

    assert caplog.messages[-1] == f"a server says {visible(ACTING)}"
