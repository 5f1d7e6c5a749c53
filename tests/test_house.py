"""The rules of the source tree that no linter checks: sizes, names, imports, and a test file for each module.

Every exception is listed here with its present value or its reason. An exception may only shrink: a test fails when a listed
value has grown, and also when an entry is no longer needed.
"""

import ast
from collections import defaultdict
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("schemas", "filters", "thresher", "flows")

MOST_LINES = 400
MOST_LINES_OF_A_FUNCTION = 60
MOST_MODULES = 14
"""In one folder, not counting __init__.py."""

LONG_FILES: dict[str, int] = {}
LONG_FUNCTIONS: dict[str, int] = {}
FULL_FOLDERS: dict[str, int] = {}
REPEATED_STEMS: dict[str, int] = {}
"""Stems of several modules under thresher/, and how many there are."""
DEFERRED_IMPORTS: dict[str, int] = {}
"""Imports of our own packages inside functions."""
ASSERTED_MANIFESTS: dict[str, int] = {}
"""Asserts that a manifest, an entry or a model is not None, where a type should say it."""

UNTESTED: dict[str, str] = {
    "flows/generate.py": "test_flows_pipeline.py, with a Prefect server",
    "flows/judge.py": "test_flows_pipeline.py, with a Prefect server",
    "flows/release.py": "test_flows_pipeline.py, with a Prefect server",
    "flows/reporting.py": "test_flows_pipeline.py and test_flows_schedules.py",
    "flows/serving.py": "test_flows_schedules.py, which shares one thresher serve",
    "flows/slots.py": "test_flows_schedules.py, which shares one thresher serve",
    "thresher/auditing/kept.py": "test_auditing_cache.py",
    "thresher/dedupe/compile_kernels.py": "make venv runs it",
    "thresher/dedupe/components.py": "test_dedupe_out_of_core.py: the same as in memory",
    "thresher/dedupe/duplicate_links.py": "test_dedupe_out_of_core.py: the same as in memory",
    "thresher/dedupe/index_runs.py": "test_dedupe_index.py",
    "thresher/dedupe/index_search.py": "test_dedupe_index.py",
    "thresher/dedupe/row_signatures.py": "test_dedupe_table.py",
    "thresher/dedupe/signed_texts.py": "test_dedupe_out_of_core.py: the same as in memory",
    "thresher/judging/corpus.py": "test_relations.py and test_dedupe_released.py, through whole runs",
    "thresher/releases/append.py": "test_releases_publish.py and test_releases_places_folder.py",
    "thresher/executors/ray_calls.py": "test_executors_ray.py, on a cluster",
    "thresher/executors/ray_replicas.py": "test_executors_ray.py, on a cluster",
    "filters/sandbox/probes.py": "runs inside the sandbox; test_filters_sandbox_selftest.py runs it",
    "filters/supervise/serve.py": "the main function of a worker; test_filters_supervise_pool.py starts it",
    "thresher/study/training/trl_trainer.py": "a program; test_study_training_train.py starts it",
}
"""Modules without a test file of their own, and where their behaviour is tested instead."""

SPANNING: dict[str, str] = {
    "test_crash_points.py": "commands cut off at each change of the disk",
    "test_damaged_files.py": "damage to any file of a run or of a repository in a folder, through the commands that write them",
    "test_damaged_runs.py": "damaged runs, through every command that reads them",
    "test_declared_runs.py": "what a recipe forces, through whole runs",
    "test_deployment.py": "the commands of docs/deployment.md, on a cluster of two machines",
    "test_docs_examples.py": "the examples of README and docs/",
    "test_docs_names.py": "the names in README and docs/",
    "test_equality_before.py": "runs and a release of an earlier version",
    "test_hostile_recipes.py": "recipes, arguments, rows and manifests of any content, through the commands",
    "test_hostile_servers.py": "whatever a server sends, through the sampler and what asks it",
    "test_hub_contract.py": "the Hub of the tests, and the real one",
    "test_large_texts.py": "runs with more text than an Arrow array holds",
    "test_incomplete_runs.py": "the reports of runs that are unfinished, empty or of another version",
    "test_interleavings.py": "processes on one run directory, stopped, continued and killed at random",
    "test_kill.py": "kill -9 at random instants of a run",
    "test_mended_filters.py": "filters that are broken in one run and mended in the next",
    "test_neighbours.py": "every filter, with and without other samples beside one",
    "test_releases_random_changes.py": "random changes of a repository, cut off anywhere",
    "test_security.py": "docs/security.md, tried as a stranger",
    "test_supply_chain.py": "the locks, the Makefile that installs them, and docs/licences.md",
    "test_truth.py": "verdicts beside the truth, through every filter that has cases",
    "test_several_models.py": "runs that draw from several models",
    "test_several_models_vllm.py": "a run of two models on vLLM",
    "test_recipes.py": "the shipped recipes, each through a whole run",
    "test_thinking_models.py": "the recipe of docs/models.md, on three engines",
    "test_two_writers.py": "two commands that write one run directory",
    "test_trl_training.py": "the views of whole runs, read by TRL's trainers",
    "test_relations.py": "duplicates and near misses, through whole runs",
    "test_what_leaves.py": "cards, datasets, releases and reports of runs with hostile names and private settings",
    "test_running_reads.py": "how often a run reads its pool",
    "test_samplers_http_servers.py": "a server of each dialect, through the sampler",
    "test_samplers_vllm_offline_run.py": "the demo recipe on vLLM, killed and resumed",
    "test_samplers_vllm_parsers_run.py": "a run on vLLM whose model calls tools",
    "test_samplers_vllm_stalls.py": "a real engine that hangs",
    "test_filters.py": "filters.build, and all registered filters",
    "test_filters_reward_hacks.py": "programs that attack filters.code and filters.sandbox together",
}
"""Test files that test no single module, and what they test."""


def modules() -> list[Path]:
    return sorted(path.relative_to(ROOT) for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


def named_modules() -> list[Path]:
    return [path for path in modules() if path.name not in ("__init__.py", "__main__.py")]


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse((ROOT / path).read_text(), str(path))


def test_file_of(path: Path) -> str:
    """The test file of a module: its package path joined with `_`, without `thresher_` for modules of its packages."""
    parts = path.with_suffix("").parts
    if parts[0] == "thresher" and len(parts) > 2:
        parts = parts[1:]
    return f"test_{'_'.join(parts)}.py"


test_file_of.__test__ = False  # type: ignore[attr-defined]


def assert_only_listed(values: dict[str, int], listed: dict[str, int], most: int = 0) -> None:
    """Nothing above `most` but what is listed, no listed value has grown, and no entry is superfluous."""
    too_much = [f"{name}: {value}" for name, value in values.items() if value > listed.get(name, most)]
    superfluous = [name for name in listed if values.get(name, 0) <= most]

    assert_none(too_much, f"above the limit of {most}, or above the listed exception")
    assert_none(superfluous, "within the limit now: remove these exceptions")


def assert_none(faults: Iterable[str], advice: str) -> None:
    """Fail with the whole list, which pytest would cut."""
    lines = [f"  {fault}" for fault in sorted(faults)]
    if lines:
        pytest.fail("\n".join([f"{advice}:", *lines]), pytrace=False)


def own_imports(node: ast.AST) -> Iterator[ast.Import | ast.ImportFrom]:
    """Imports of our own packages anywhere below a node."""
    for child in ast.walk(node):
        if isinstance(child, ast.ImportFrom) and child.level == 0 and child.module:
            names = [child.module]
        elif isinstance(child, ast.Import):
            names = [alias.name for alias in child.names]
        else:
            continue
        if any(name.split(".")[0] in PACKAGES for name in names):
            yield child


def test_no_source_file_is_too_long() -> None:
    lines = {str(path): len((ROOT / path).read_text().splitlines()) for path in modules()}

    assert_only_listed(lines, LONG_FILES, MOST_LINES)


@pytest.mark.slow
def test_no_function_is_too_long() -> None:
    lines: dict[str, int] = defaultdict(int)
    for path in modules():
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                name = f"{path}:{node.name}"
                lines[name] = max(lines[name], (node.end_lineno or node.lineno) - node.lineno + 1)

    assert_only_listed(lines, LONG_FUNCTIONS, MOST_LINES_OF_A_FUNCTION)


def test_no_folder_is_too_full() -> None:
    counts: dict[str, int] = defaultdict(int)
    for path in named_modules():
        counts[str(path.parent)] += 1

    assert_only_listed(counts, FULL_FOLDERS, MOST_MODULES)


def test_no_two_modules_of_thresher_have_the_same_stem() -> None:
    counts: dict[str, int] = defaultdict(int)
    for path in named_modules():
        if path.parts[0] == "thresher":
            counts[path.stem] += 1

    assert_only_listed(counts, REPEATED_STEMS, 1)


@pytest.mark.slow
def test_no_import_of_our_own_is_deferred_below_the_command_line() -> None:
    counts: dict[str, int] = defaultdict(int)
    for path in modules():
        if path.parts[:2] == ("thresher", "cli"):
            continue
        functions = [node for node in ast.walk(tree_of(path)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
        deferred = {child.lineno for node in functions for child in own_imports(node)}
        if deferred:
            counts[str(path)] = len(deferred)

    assert_only_listed(counts, DEFERRED_IMPORTS)


@pytest.mark.slow
def test_no_import_of_our_own_is_for_type_checkers_only() -> None:
    """Such an import hides a circle. The command line may: it keeps its start fast."""
    hidden = []
    for path in modules():
        if path.parts[:2] == ("thresher", "cli"):
            continue
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
                hidden += [f"{path}:{child.lineno}" for child in own_imports(node)]

    assert_none(hidden, "imported for type checkers only")


def test_no_manifest_is_asserted_to_exist() -> None:
    counts: dict[str, int] = defaultdict(int)
    for path in modules():
        for node in ast.walk(tree_of(path)):
            if path.parts[0] == "thresher" and isinstance(node, ast.Assert):
                text = ast.unparse(node.test)
                counts[str(path)] += any(f"{name} is not None" in text for name in ("manifest", "entry", "model"))

    assert_only_listed(counts, ASSERTED_MANIFESTS)


def test_every_module_has_its_test_file() -> None:
    missing = {str(path) for path in named_modules() if not (ROOT / "tests" / test_file_of(path)).exists()}

    assert_none(missing - set(UNTESTED), "without a tests/test_<package>_<module>.py")
    assert_none(set(UNTESTED) - missing, "tested now, or gone: remove these entries")


def test_every_test_file_is_named_after_a_module_or_listed() -> None:
    """A test file whose module was moved away is found here."""
    of_modules = {test_file_of(path) for path in named_modules()} | {Path(__file__).name}
    stray = {path.name for path in (ROOT / "tests").glob("test_*.py")} - of_modules

    assert_none(stray - set(SPANNING), "name it after its module, or list it")
    assert_none(set(SPANNING) - stray, "named after a module now, or gone: remove these entries")


def test_tests_do_not_load_modules_by_path() -> None:
    """What tests share is a module of tests/helpers."""
    paths = [path for path in (ROOT / "tests").rglob("*.py") if path != Path(__file__)]
    loading = [str(path.relative_to(ROOT)) for path in paths if "runpy" in path.read_text()]

    assert_none(loading, "import it from helpers instead")


@pytest.mark.parametrize(
    ("path", "test_file"),
    [
        ("schemas/recipe.py", "test_schemas_recipe.py"),
        ("filters/code/values.py", "test_filters_code_values.py"),
        ("thresher/ids.py", "test_thresher_ids.py"),
        ("thresher/running/steps.py", "test_running_steps.py"),
        ("thresher/releases/places/folder.py", "test_releases_places_folder.py"),
    ],
)
def test_a_test_file_is_named_after_its_module(path: str, test_file: str) -> None:
    assert test_file_of(Path(path)) == test_file
