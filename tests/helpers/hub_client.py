"""Runs commands of thresher, and loads datasets, in one process with the environment of a test Hub: a command costs seconds to
import. Reads JSON lines, {"thresher": [...]}, {"load": [REPO, CONFIG, REVISION...]} or {"card": [REPO, STATE]}, for a commit of a
card of helpers.cards; writes status, output and errors."""

import contextlib
import io
import json
import sys
from pathlib import Path
from typing import Any

import datasets
from huggingface_hub import HfApi

from thresher.cli import main
from thresher.releases.places.hub import HubPlace


def load(repo: Any, config: Any, *revisions: Any) -> Any:
    """The names of one config's rows by revision, after every split of every config was loaded and streamed."""
    found: dict[str, list[str]] = {}
    for name_of in revisions:
        revision = HfApi().dataset_info(repo, revision=name_of).sha  # a branch moves on
        for each in datasets.get_dataset_config_names(repo, revision=revision):
            for split, whole in datasets.load_dataset(repo, each, revision=revision).items():
                name = "sample_id" if "sample_id" in whole.column_names else "prompt_id"
                streamed = datasets.load_dataset(repo, each, split=split, revision=revision, streaming=True)
                assert [row[name] for row in streamed] == whole[name][:]
                if each == config:
                    found.setdefault(name_of, []).extend(whole[name][:])
    print(json.dumps(found))
    return 0


def card(repo: Any, state: Any) -> Any:
    """Commit a card to the Hub."""
    sys.path.append(str(Path(__file__).parent.parent))
    from helpers.cards import commit_card

    commit_card(HubPlace(repo), state)
    return 0


CALLS: Any = {"load": load, "card": card, "thresher": lambda *arguments: main(list(arguments))}

for line in sys.stdin:
    asked, out, errors = json.loads(line), io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors):
        try:
            status = next(call(*asked[name]) for name, call in CALLS.items() if name in asked)
        except SystemExit as end:
            status = end.code
        except Exception as error:  # noqa: BLE001 - told to who asked
            status = 99
            print(repr(error), file=sys.stderr)
    print(json.dumps([status, out.getvalue(), errors.getvalue()]), flush=True)
