"""The Python interface runs the recipes that the command line runs."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from thresher import errors, interface


def test_a_run_is_sampled_audited_and_published(recipe: Callable[..., Path], tmp_path: Path) -> None:
    loaded = interface.load_recipe(recipe(), ["sampling.samples_per_prompt=2"])

    run = interface.run(loaded, tmp_path / "run")
    audit = interface.audit(run)
    published = interface.publish(run, str(tmp_path / "released"), gates=["self_check=false"])

    assert (audit.complete, audit.samples, audit.total.hits) == (True, 8, published.rows["sft"])
    assert interface.audit(tmp_path / "run", recount=True) == audit
    assert interface.run(loaded, tmp_path / "run").root == run.root  # finished: nothing to do


def test_samples_of_ones_own_are_filtered(recipe: Callable[..., Path], tmp_path: Path) -> None:
    rows = [{"prompt": "2 + 2?", "reference": "4", "completion": text} for text in ("4", "5")]
    (tmp_path / "own.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    run = interface.filter_samples(recipe(), tmp_path / "own.jsonl", tmp_path / "run")

    assert interface.audit(run).kinds["hit"] == 1


def test_errors_are_thresher_errors(tmp_path: Path) -> None:
    with pytest.raises(errors.ThresherError, match=r"it has no run\.json"):
        interface.audit(tmp_path)
