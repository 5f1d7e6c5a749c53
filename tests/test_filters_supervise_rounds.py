"""Verdicts for items that a worker did not answer."""

from typing import Literal

from filters.supervise import Answer, verdict_of
from schemas.sample import Outcome

KINDS: tuple[Literal["timeout", "crash", "error"], ...] = ("timeout", "crash", "error")


def test_an_item_that_was_not_done_is_undecided() -> None:
    """It is neither right nor wrong."""
    verdicts = {kind: verdict_of(Answer(kind, message="why")) for kind in KINDS}

    assert {kind: verdict.reason for kind, verdict in verdicts.items()} == {
        "timeout": "timeout",
        "crash": "crash",
        "error": "filter_error",
    }
    assert {verdict.outcome for verdict in verdicts.values()} == {Outcome.UNDECIDED}
