"""Releases in a folder: published, and read as the card lists them."""

from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from helpers.runs import LOOSE
from schemas.dataset import PublishSpec
from thresher.pool.run import open_run
from thresher.releases.publish import Published, publish


def release_run(repo: str, run: Path, **spec: Any) -> Published:
    """Publish a run through gates that refuse nothing; `spec` changes keys of the recipe's `publish`."""
    return publish(open_run(run), PublishSpec.model_validate({"repo": repo, "gates": LOOSE} | spec))


def config_rows(repo: str, config: str, split: str = "train") -> list[dict[str, Any]]:
    """The rows of a config, by the files that its card names; their number must be the card's."""
    fs, base = fsspec.core.url_to_fs(repo, skip_instance_cache=True)
    card = yaml.safe_load(fs.cat_file(f"{base}/README.md").decode().split("---\n")[1])
    files = {entry["config_name"]: {data["split"]: data["path"] for data in entry["data_files"]} for entry in card["configs"]}
    if config not in files:
        return []
    tables = [pq.read_table(fs.open(f"{base}/{path}")) for path in files[config].get(split, [])]
    info = next(entry for entry in card["dataset_info"] if entry["config_name"] == config)
    rows: list[dict[str, Any]] = pa.concat_tables(tables).to_pylist()
    assert len(rows) == next(entry["num_examples"] for entry in info["splits"] if entry["name"] == split)
    return rows


def sft_ids(repo: str) -> list[str]:
    """The sample ids of the view sft."""
    return [row["sample_id"] for row in config_rows(repo, "sft")]
