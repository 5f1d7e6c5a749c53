"""The exit of a finished run: not 0 where it is not to be relied on, and the last line says why."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from helpers.own_samples import related_samples
from helpers.runs import dataset_of
from helpers.small_run import PLAN, small_run
from thresher.auditing.count_run import count
from thresher.cli import main
from thresher.running.shortfalls import notes, shortfalls

Recipe = Callable[..., Path]


@pytest.mark.parametrize(
    ("fates", "views", "words"),
    [
        (["right", "wrong"], None, []),
        (["wrong", "wrong"], None, ["no hits: none of 2 samples passed every filter"]),
        (["right", "wrong"], ["sft", "preference"], ["views without rows: preference"]),
        (["wrong", "wrong"], ["preference", "rollouts"], ["no hits: none of 2 samples passed", "views without rows: preference"]),
    ],
)
def test_runs_that_are_not_to_be_relied_on(tmp_path: Path, fates: list[str], views: list[str] | None, words: list[str]) -> None:
    """A view counts where the recipe names it; `sft` always does, and without hits it is not named twice."""
    run = small_run(tmp_path, [("sums", fates, None)], dataset={} if views is None else {"views": views})
    if views is None:  # a recipe read from a file, as the command line has it
        dataset = run.recipe.dataset.model_copy()
        dataset.model_fields_set.discard("views")
        run = replace(
            run, manifest=run.manifest.model_copy(update={"recipe": run.recipe.model_copy(update={"dataset": dataset})})
        )
    dataset_of(run)
    audit = count(run)

    faults = shortfalls(run, audit)

    assert len(faults) == len(words)
    assert all(fault.startswith(word) for fault, word in zip(faults, words, strict=True))
    assert len(notes(run, audit)) == (views is None and fates == ["right", "wrong"]) + (views is None and "right" not in fates)


def test_alarms_and_what_could_not_be_drawn(tmp_path: Path) -> None:
    run = small_run(tmp_path, PLAN)
    dataset_of(run)
    audit = replace(count(run), alarms=("answer: unparsed 9 of 10",), not_sampled={"status 500": 3})

    assert shortfalls(run, audit)[-1] == "1 alarm, see above"
    assert notes(run, audit)[0].startswith(
        "3 samples could not be drawn and are undecided (see above); `thresher run` tries them"
    )


def test_filter_of_samples_without_a_hit_exits_with_1_unless_that_is_allowed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also when it is called again and finds everything finished."""
    rows = [row | {"reference": "1"} for row in related_samples(1)]
    (tmp_path / "own.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "recipe.yaml").write_text(
        'name: own\nfilters: [{name: exact_answer, parameters: {after: "A:"}}]\nrun: {filter_workers: 0}\n'
    )
    command = ["filter", str(tmp_path / "recipe.yaml"), "--samples", str(tmp_path / "own.jsonl"), "--out", str(tmp_path / "run")]

    for flag, status in (([], 1), ([], 1), (["--allow-empty"], 0)):
        assert main([*command, *flag]) == status
        last = capsys.readouterr().err.strip().splitlines()[-1]
        assert "no hits: none of 7 samples passed every filter" in last
        assert ("allowed by --allow-empty" in last) == (status == 0)
