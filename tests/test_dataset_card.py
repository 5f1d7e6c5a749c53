from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import yaml

from helpers.runs import dataset_of
from helpers.small_run import small_run
from schemas.sampling import Sampling
from thresher.dataset import views
from thresher.dataset.card import sampling_words
from thresher.pool.run import open_run


def front_matter(folder: Path) -> Any:
    return yaml.safe_load((folder / "README.md").read_text().split("\n---\n")[0])


def test_front_matter_tells_sizes_licence_and_configs(tmp_path: Path) -> None:
    folder = dataset_of(small_run(tmp_path, dataset={"license": "mit", "pretty_name": "My: set", "tags": ["math", "trl"]}))
    found = front_matter(folder)

    assert (found["license"], found["pretty_name"], found["language"]) == ("mit", "My: set", ["en"])
    assert found["tags"] == ["synthetic", "thresher", "trl", "datasets", "math"]
    assert found["size_categories"] == ["n<1K"]
    assert [(c["config_name"], c.get("default")) for c in found["configs"]] == [
        ("sft", True),
        ("unpaired", None),
        ("prompts", None),
        ("rollouts", None),
    ]
    for info in found["dataset_info"]:
        files = list((folder / info["config_name"] / "train").iterdir())
        assert info["download_size"] == sum(file.stat().st_size for file in files)
        assert info["splits"][0]["num_examples"] == sum(pq.read_metadata(file).num_rows for file in files)


def test_card_holds_funnel_recipe_and_columns(tmp_path: Path) -> None:
    text = (dataset_of(small_run(tmp_path)) / "README.md").read_text()

    assert "| answer | 18 | 6 (33.3 %) | 6 | 6 | wrong_answer 6, no_reference 6 |" in text
    assert "| sums | 3 | 12 | 45.5 %" in text
    assert "samples_per_prompt: 4" in text
    for view in ("sft", "unpaired", "prompts", "rollouts"):
        for name, _, meaning in views.COLUMNS[view]:
            if name not in views.IN_SOME_RUNS:
                assert f"| `{name}` |" in text
                assert meaning in text


def test_card_names_every_parameter_that_is_not_neutral(tmp_path: Path) -> None:
    text = (dataset_of(small_run(tmp_path, sampling={"temperature": 0.7, "top_k": 20})) / "README.md").read_text()

    assert "changed by temperature 0.7, top_k 20; everything else neutral" in text
    assert sampling_words(Sampling()).startswith("the model's own: temperature 1")


def test_card_names_the_adapter_and_the_settings_of_the_engine(tmp_path: Path) -> None:
    """The settings as JSON, which cannot break the table."""
    run = small_run(tmp_path)
    assert "settings of the engine" not in (dataset_of(run) / "README.md").read_text()
    more = {
        "adapter": {"name": "org/tuned", "path": "/cache/tuned", "revision": "abc", "rank": 8},
        "settings": {"dtype": "bfloat16", "options": {"quantization": "a|`b"}},
    }
    manifest = run.manifest.model_copy(update={"model": run.manifest.model | more})
    run.store.write_model("run.json", manifest)
    text = (dataset_of(open_run(tmp_path)) / "README.md").read_text()

    assert "| adapter | `org/tuned`, revision `abc` |" in text
    assert r"""| settings of the engine | `{"dtype":"bfloat16","options":{"quantization":"a\|'b"}}` |""" in text
    assert "/cache/tuned" not in text


def test_description_and_recipe_cannot_break_out_of_the_card(tmp_path: Path) -> None:
    settings = {"description": "A set.\n---\n{{ x }} <b>", "pretty_name": "---\nlicense: evil", "tags": ["````"]}
    folder = dataset_of(small_run(tmp_path, dataset=settings))
    text = (folder / "README.md").read_text()

    assert front_matter(folder)["pretty_name"] == "--- license: evil"
    assert "license" not in front_matter(folder)
    assert "{{ x }} <b>" in text
    assert "`````yaml\n" in text
    assert text.endswith("`````\n")
    assert "No licence is given" in text


def test_views_are_written_in_the_order_of_the_recipe(tmp_path: Path) -> None:
    folder = dataset_of(small_run(tmp_path, dataset={"views": ["rollouts", "prompts"]}))

    assert [c["config_name"] for c in front_matter(folder)["configs"]] == ["rollouts", "prompts"]
    assert not (folder / "sft").exists()
