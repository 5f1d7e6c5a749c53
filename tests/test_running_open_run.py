"""A run is opened, found again, or refused because the directory belongs to another one."""

import json
import re
import shutil
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from helpers import known
from helpers.lora import write_adapter
from helpers.runs import pool_rows, run_recipe, sample_until_it_dies
from schemas.sample import Message, Prompt
from thresher.errors import ModelError, RecipeError, SourceError, StoreError
from thresher.inputs import recipe_file
from thresher.inputs.models import embedded_model
from thresher.pool.rows import series_of
from thresher.pool.run import Run
from thresher.pool.store import Store
from thresher.running import steps
from thresher.running.open_run import _fingerprints

Write = Callable[..., Path]


def test_ids_are_the_same_in_every_run_and_others_under_another_salt(recipe: Write, tmp_path: Path) -> None:
    """Identity comes from content; a scheduled run has its own salt."""
    path = recipe()
    for name, salt in (("one", None), ("two", None), ("salted", "night")):
        run_recipe(path, tmp_path / name, salt=salt)
    one, two, salted = ({row["sample_id"] for row in pool_rows(tmp_path / name)} for name in ("one", "two", "salted"))

    assert one == two
    assert not one & salted


def test_another_sampling_in_the_same_directory_is_refused(recipe: Write, tmp_path: Path) -> None:
    """The message says what differs and what to do."""
    path = recipe()
    run_recipe(path, tmp_path / "run")

    with pytest.raises(StoreError, match=r"sampling.max_tokens was 16 and is now 99; choose another directory with --out"):
        steps.begin(recipe_file.load(path, ["sampling.max_tokens=99"]), tmp_path / "run")


def test_changed_prompts_in_the_same_directory_are_refused(recipe: Write, tmp_path: Path) -> None:
    """The prompt file's hash is part of what decides the samples."""
    path = recipe()
    run_recipe(path, tmp_path / "run")
    (tmp_path / "prompts.jsonl").write_text('{"country": "Peru", "answer": "Lima"}\n')

    with pytest.raises(StoreError, match=r"prompts.jsonl was"):
        steps.begin(recipe_file.load(path), tmp_path / "run")


def test_all_files_of_a_source_decide(recipe: Write, tmp_path: Path) -> None:
    """Their content and their names, of folders, patterns and local datasets, and of two sources whose files have one name."""
    for name in ("a/x.jsonl", "b/x.jsonl", "b/y.jsonl", "b/._y.jsonl"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(json.dumps({"country": name, "answer": "Lima"}) + "\n")
    paths = ("a/x.jsonl", "b/x.jsonl", "b", "b/*.jsonl")
    sources = [*({"kind": "jsonl", "path": path} for path in paths), {"kind": "dataset", "path": "./b"}]
    loaded = recipe_file.load(recipe(prompts=[{"family": f"f{n}", "source": source} for n, source in enumerate(sources)]))

    def files() -> dict[str, str]:
        return _fingerprints(loaded.recipe, loaded.base)

    first = files()

    assert list(first) == ["x.jsonl", "b/x.jsonl", "b", "b/*.jsonl", "./b"]
    (tmp_path / "b" / "._y.jsonl").write_text("hidden")
    assert files() == first
    (tmp_path / "b" / "y.jsonl").write_text("{}")
    changed = files()
    assert [name for name in first if changed[name] != first[name]] == ["b", "b/*.jsonl", "./b"]
    (tmp_path / "b" / "y.jsonl").rename(tmp_path / "b" / "z.jsonl")
    assert len({files()["b"], changed["b"], first["b"]}) == 3


def test_samples_that_were_refused_may_be_mended(recipe: Write, tmp_path: Path) -> None:
    """In the same directory: nothing was imported. A pattern's files decide, as a recipe's do."""
    loaded, own = recipe_file.load(recipe(filters=[{"name": "exact_answer"}])), tmp_path / "own.jsonl"
    own.write_text('{"prompt": "a"}\n')
    with pytest.raises(SourceError, match=r"own.jsonl: none of its 1 rows can be read; the first: own.jsonl:1: no completion"):
        steps.begin_brought(loaded, own, tmp_path / "run")
    own.write_text('{"prompt": "a", "completion": "b"}\n')

    begun = steps.begin_brought(loaded, tmp_path / "own*.jsonl", tmp_path / "run")
    assert (begun.shards, begun.run.manifest.model["samples"]) == (1, "own*.jsonl")
    (tmp_path / "own2.jsonl").write_text('{"prompt": "a", "completion": "c"}\n')
    with pytest.raises(StoreError, match=r"samples was .* and is now"):
        steps.begin_brought(loaded, tmp_path / "own*.jsonl", tmp_path / "run")


def test_a_corpus_filter_before_another_is_refused(recipe: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It could not see what the later one drops."""
    (tmp_path / "over_the_run.py").write_text(
        "from filters.base import Filter, Role, Scope\n"
        "def build(config):\n"
        "    return Filter('over_the_run', '1', Scope.CORPUS, Role.DUPLICATE, lambda batches: [], ('completion',))\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    path = recipe(filters=[{"name": "over_the_run:build"}, {"name": "finished"}])

    with pytest.raises(RecipeError, match=r"finished .scope sample. comes after over_the_run"):
        steps.begin(recipe_file.load(path), tmp_path / "run")


def test_no_prompts_is_an_error_before_anything_is_written(recipe: Write, tmp_path: Path) -> None:
    """An empty prompt file is named."""
    path = recipe()
    (tmp_path / "prompts.jsonl").write_text("")

    with pytest.raises(SourceError, match=r"capital.*no rows"):
        steps.begin(recipe_file.load(path), tmp_path / "run")


def test_completions_that_leave_no_room_for_a_prompt_are_refused(recipe: Write, tmp_path: Path) -> None:
    """Before an engine is started, with the line of the recipe."""
    path = recipe(engine={"kind": "vllm", "max_model_len": 16})

    with pytest.raises(RecipeError, match=r"sampling.max_tokens: 16 tokens leave no room for a prompt in the context of 16"):
        steps.begin(recipe_file.load(path), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_rows_that_cannot_be_carried_cost_themselves_and_are_noted(recipe: Write, tmp_path: Path) -> None:
    """The run goes through with the others; what was left out is in the entry of its plan."""
    chats: list[Any] = [[{"role": "user", "content": f"Capital of {country}?"}] for country in ("France", "Spain")]
    chats += [[{"role": "user", "content": [{"type": "image"}]}], [{"role": "narrator", "content": "x"}]]
    prompts = {"family": "capital", "source": {"kind": "jsonl", "path": "chats.jsonl"}, "messages": "chat"}
    path = recipe(prompts=[prompts])
    (tmp_path / "chats.jsonl").write_text("".join(json.dumps({"chat": chat, "answer": "Paris"}) + "\n" for chat in chats))

    run_recipe(path, tmp_path / "run")

    assert {row["messages"][0]["content"] for row in pool_rows(tmp_path / "run")} == {"Capital of France?", "Capital of Spain?"}
    facts = known(Store(tmp_path / "run").entry("prompts")).facts
    assert (facts["prompts"], facts["left_out"]) == (2, {"capital": {"an image": 1, "unknown role narrator": 1}})


# -- what identifies a run's samples ---------------------------------------------------------------------------------------


HTTP = {"kind": "openai_http", "base_urls": ["http://127.0.0.1:9/v1"]}


def begun_as(recipe: Write, out: Path, **changes: Any) -> Run:
    """Begin a run of the small recipe with changed parts; nothing is sampled."""
    changes |= {"engine": {"kind": "vllm", **changes["engine"]}}
    return steps.begin(recipe_file.load(recipe(**changes)), out).run


@pytest.mark.parametrize(
    ("before", "after", "difference"),
    [
        (
            {"engine": {"options": {"kv_cache_dtype": "fp8"}}},
            {"engine": {}},
            "engine.options.kv_cache_dtype was fp8 and is now not set",
        ),
        (
            {"engine": {"options": {"speculative_config": {"method": "ngram", "num_speculative_tokens": 2}}}},
            {"engine": {"options": {"speculative_config": {"method": "ngram", "num_speculative_tokens": 3}}}},
            "engine.options.speculative_config.num_speculative_tokens was 2 and is now 3",
        ),
        ({"engine": {"dtype": "float32"}}, {"engine": {"dtype": "float16"}}, "engine.dtype was float32 and is now float16"),
        (
            {"engine": HTTP},
            {"engine": {**HTTP, "extra_body": {"reasoning_effort": "low"}}},
            "engine.extra_body.reasoning_effort was not set and is now low",
        ),
        ({"engine": HTTP}, {"engine": {**HTTP, "api": "completions"}}, "model.prompt_format was chat and is now text"),
        (
            {"engine": HTTP, "model": {"adapter": "one"}},
            {"engine": HTTP, "model": {"adapter": "two"}},
            "model.adapter was one and is now two",
        ),
        ({"engine": HTTP}, {"engine": {"dtype": "float32"}}, "engine.kind was openai_http and is now vllm"),
    ],
    ids=["option", "nested", "dtype", "extra_body", "api", "adapter", "kind"],
)
def test_a_run_is_not_continued_with_another_identity(
    recipe: Write, tmp_path: Path, before: dict[str, Any], after: dict[str, Any], difference: str
) -> None:
    """The message names the setting, what it was and what it is."""
    begun_as(recipe, tmp_path / "run", **before)

    with pytest.raises(StoreError, match=rf"holds a run of other samples; .*{re.escape(difference)}.*; choose another directory"):
        begun_as(recipe, tmp_path / "run", **after)


def test_a_run_is_continued_with_other_settings_of_speed(recipe: Write, tmp_path: Path) -> None:
    """Ids are the same, too."""
    first = begun_as(recipe, tmp_path / "run", engine={"dtype": "float32"})
    fast = {"max_num_seqs": 4, "enforce_eager": True, "max_model_len": 256, "kv_cache_gib": 2}
    again = begun_as(recipe, tmp_path / "run", engine={"dtype": "float32", "options": {"block_size": 32}, **fast})

    assert again.key == first.key
    assert again.settings == first.settings == {"dtype": "float32"}
    assert keys_of(again) == keys_of(first)


def test_ids_of_samples_follow_the_identity(recipe: Write, tmp_path: Path) -> None:
    write_adapter(tmp_path / "tuned")
    changes: list[dict[str, Any]] = [
        {"engine": {"dtype": "float32"}},
        {"engine": {"dtype": "bfloat16"}},
        {"engine": {"dtype": "float32", "options": {"quantization": "fp8"}}},
        {"engine": {"dtype": "float32"}, "model": {"prompt_format": "text"}},
        {"engine": {"dtype": "float32"}, "model": {"adapter": "tuned"}},
    ]
    keys = [keys_of(begun_as(recipe, tmp_path / f"run{number}", **change)) for number, change in enumerate(changes)]

    assert len({key for run in keys for key in run}) == 2 * len(changes)


def test_a_changed_template_or_tokenizer_is_another_model(recipe: Write, tmp_path: Path) -> None:
    """Both decide what the model reads."""
    copy = tmp_path / "model"
    copy.mkdir()
    for file in Path(embedded_model().path).iterdir():
        if file.suffix == ".safetensors":
            (copy / file.name).symlink_to(file)
        else:
            shutil.copy(file, copy)
    changes: dict[str, Any] = {"engine": {"dtype": "float32"}, "model": {"name": "./model"}}
    begun_as(recipe, tmp_path / "run", **changes)
    template = (copy / "chat_template.jinja").read_text()
    (copy / "chat_template.jinja").write_text(template + " ")
    with pytest.raises(StoreError, match=r"model.chat_template_sha256 was \w+ and is now \w+; choose"):
        begun_as(recipe, tmp_path / "run", **changes)
    (copy / "chat_template.jinja").write_text(template)
    (copy / "tokenizer.json").write_text((copy / "tokenizer.json").read_text() + "\n")

    with pytest.raises(StoreError, match=r"model.revision was \w+ and is now \w+; choose"):
        begun_as(recipe, tmp_path / "run", **changes)


def test_an_adapter_of_another_model_is_refused_before_anything_is_written(recipe: Write, tmp_path: Path) -> None:
    write_adapter(tmp_path / "tuned", inputs=960)

    with pytest.raises(ModelError, match=r"model.adapter 'tuned': .* an adapter of another model"):
        begun_as(recipe, tmp_path / "run", engine={"dtype": "float32"}, model={"adapter": "tuned"})
    assert not (tmp_path / "run").exists()


def test_samples_record_what_their_engine_was_told(recipe: Write, tmp_path: Path) -> None:
    """Compactly: a replay has no settings, and its samples only their parameters."""
    run_recipe(recipe(), tmp_path / "run")
    [plain] = {row["sampling"] for row in pool_rows(tmp_path / "run") if row["anchor"]}
    run = begun_as(recipe, tmp_path / "other", engine={**HTTP, "extra_body": {"user": "me"}})
    [_, anchors] = series_of(run.recipe.sampling, known(run.model), "", settings=run.settings, template=run.template)

    assert "engine" not in json.loads(plain)
    assert json.loads(anchors.text) == {**json.loads(plain), "engine": {"extra_body": {"user": "me"}}}
    assert "engine" not in anchors.parameters


def keys_of(run: Run) -> list[str]:
    """The source keys of a run's samples and anchors, as its shards use them."""
    series = series_of(run.recipe.sampling, known(run.model), run.recipe.run.salt, settings=run.settings, template=run.template)
    return [part.key for part in series]


def test_prompts_are_planned_one_shard_at_a_time(recipe: Write, tmp_path: Path) -> None:
    """10 MB of prompts are cut into shards of a few, and at no time is Python's memory that of all."""
    path = recipe()
    steps.begin(recipe_file.load(path), tmp_path / "first")  # imports what it needs
    made = (Prompt(f"{number:064x}", "capital", (Message("user", f"{number:09d}" + "x" * 100_000),)) for number in range(100))
    tracemalloc.start()
    begun = steps.begin(recipe_file.load(path, ["run.shard_bytes=1100000"]), tmp_path / "run", prompts=made)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    plan = known(begun.run.store.entry("prompts"))

    assert begun.shards == pq.read_metadata(tmp_path / "run/prompts.parquet").num_row_groups == 50
    assert (plan.facts["prompts"], plan.facts["families"]) == (100, {"capital": 100})
    assert 50_000_000 < plan.facts["text_bytes"] < 51_000_000
    assert peak < 5_000_000


def test_another_shard_size_leaves_a_begun_run_as_it_is(recipe: Write, tmp_path: Path) -> None:
    """The plan is written once; a new run is cut otherwise, of the same samples."""
    path, small = recipe(), "run.shard_bytes=1"
    sample_until_it_dies(path, tmp_path / "run", after=4)
    again, cut = (steps.begin(recipe_file.load(path, [small]), tmp_path / name) for name in ("run", "cut"))

    assert (again.shards, again.missing) == (2, [1])
    assert (cut.shards, cut.run.key) == (4, again.run.key)


@pytest.mark.slow
def test_runs_that_are_cut_otherwise_have_the_same_samples(recipe: Write, tmp_path: Path) -> None:
    path = recipe()
    run_recipe(path, tmp_path / "run")
    run_recipe(path, tmp_path / "cut", "run.shard_bytes=1")

    assert len(list((tmp_path / "cut/samples").glob("*.parquet"))) == 4
    assert pool_rows(tmp_path / "run") == pool_rows(tmp_path / "cut")
