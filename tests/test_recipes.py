"""The shipped recipes: each is fit to run, and its filters keep right completions and drop wrong ones in a whole run."""

import json
from pathlib import Path
from typing import Any

import pytest

from filters.base import Role, Scope
from filters.tools import Tools
from helpers.runs import run_recipe
from schemas.prompt_sets import PromptSet
from schemas.sample import to_json
from thresher.inputs.prompts import plan
from thresher.inputs.recipe_file import load
from thresher.judging.build import build_filters
from thresher.judging.check import check_recipe

RECIPES = sorted(Path("data/recipes").glob("*.yaml"))


@pytest.mark.slow
@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_reference_passes_its_own_verifier(path: Path) -> None:
    """A wrong answer to the prompt does not."""
    report = check_recipe(load(path))
    assert report.faults == ()
    assert report.trials
    assert all(trial.prompts == trial.gold_kept == trial.wrong_dropped for trial in report.trials)


@pytest.mark.slow
@pytest.mark.parametrize("path", [path for path in RECIPES if path.stem != "demo"], ids=lambda path: path.stem)
def test_a_run_keeps_what_is_right_and_drops_what_is_wrong(path: Path, tmp_path: Path) -> None:
    """Two completions per prompt, one right and one wrong, through a whole run with replayed samples."""
    shipped = load(path)
    [verifier] = [
        built.filter
        for built in build_filters(shipped.recipe, Tools(shipped.base), imported=False)
        if built.filter.role is Role.VERIFIER and built.filter.scope is Scope.SAMPLE
    ]
    assert verifier.gold is not None
    assert verifier.wrong is not None
    answers = tmp_path / "answers.jsonl"
    with answers.open("w") as file:
        for prompt in plan(shipped.recipe, shipped.base):
            for completion in (verifier.gold(prompt.reference), verifier.wrong(prompt.reference)):
                file.write(json.dumps({"prompt": prompt.messages[-1].content, "completion": completion}) + "\n")
    engine = to_json({"kind": "replay", "path": str(answers)})
    changes = [f"engine={engine}", "sampling.samples_per_prompt=2", "sampling.anchor=false", "run.filter_workers=0"]
    audit = run_recipe(path, tmp_path / "run", *changes).audit
    assert (audit.total.prompts, audit.total.samples, audit.total.hits) == (16, 32, 16)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("recipe", "row"),
    [
        ("maths", {"question": "2+2?", "answer": "2 and 2 are <<2+2=4>>4.\n#### 4"}),
        (
            "code",
            {
                "task_id": "X/0",
                "prompt": "def f(x):\n    '''Twice.'''\n",
                "canonical_solution": "    return 2 * x\n",
                "entry_point": "f",
                "test": "def check(candidate):\n    assert candidate(2) == 4\n",
            },
        ),
        ("json", {"name": "Ada", "age": 36, "city": "London", "answer": {"name": "Ada", "age": 36, "city": "London"}}),
    ],
)
def test_your_own_file_replaces_the_shipped_one(recipe: str, row: Any, tmp_path: Path) -> None:
    """With --set prompts.0.source.path, as the recipes document."""
    own = tmp_path / "own.jsonl"
    own.write_text(json.dumps(row) + "\n")
    loaded = load(Path("data/recipes") / f"{recipe}.yaml", [f"prompts.0.source.path={own}"])
    assert isinstance(loaded.recipe.prompts[0], PromptSet)
    report = check_recipe(loaded)
    assert report.faults == ()
    assert sum(report.families.values()) == 1
