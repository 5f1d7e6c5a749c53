"""The Python interface runs the recipes that the command line runs."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import thresher
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


@pytest.mark.parametrize(
    ("variables", "wanted"),
    [
        ({}, [None, None]),
        ({"http_proxy": "http://proxy:3128"}, ["localhost,127.0.0.1,::1"] * 2),
        ({"ALL_PROXY": "http://proxy:3128", "NO_PROXY": "a.org, ::1"}, ["a.org,::1,localhost,127.0.0.1"] * 2),
        (
            {"HTTPS_PROXY": "http://proxy:3128", "NO_PROXY": "a.org", "no_proxy": "b.org"},
            ["b.org,localhost,127.0.0.1,::1", "a.org,localhost,127.0.0.1,::1"],
        ),
    ],
)
def test_no_proxy_is_asked_for_what_runs_on_this_machine(variables: dict[str, str], wanted: list[str | None]) -> None:
    """Whatever a process of thresher starts inherits that."""
    code = "import json, os, thresher; print(json.dumps([os.environ.get(name) for name in ('no_proxy', 'NO_PROXY')]))"
    path = {"PYTHONPATH": str(Path(thresher.__file__).parents[1])}
    printed = subprocess.run([sys.executable, "-c", code], env=path | variables, capture_output=True, text=True, check=True)

    assert json.loads(printed.stdout) == wanted
