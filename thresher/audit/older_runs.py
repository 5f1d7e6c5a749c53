"""Runs that an older thresher wrote: what can be read of them is audited, and the audit says what is missing.

Every other command refuses them (Store.manifest). A newer format is refused here too: nobody knows what its columns mean.
"""

from collections.abc import Iterable, Iterator

import pyarrow.parquet as pq

from schemas.manifest import RunManifest
from schemas.sample import POOL_VERSION, PROMPTS, SAMPLES, VERDICTS
from thresher import __version__
from thresher.errors import StoreError
from thresher.pool import judged
from thresher.pool.store import Store, shard_name

SHOWS = {
    "finish_reason": "what was cut short",
    "reference": "which prompts have a reference answer",
    "completion_ids": "lengths in tokens",
    "cumulative_logprob": "surprisal",
    "temperature": "pass rates by temperature",
    "unreadable": "rows that could not be read",
    "error": "samples that could not be drawn",
    "score": "scores against length",
    "detail": "near misses, canaries and contamination",
}
"""What the audit does not show without a column."""
FORMAT_1 = (
    "the calibration of the sampler",
    "near misses",
    "how draws fell on hits, and so their effective number",
    "distinct words",
)
"""What format 1 did not note."""


def opened(store: Store) -> RunManifest:
    """What a run is, of this format or an older one. Raises StoreError where there is no run."""
    manifest = store.manifest(older=True)
    if manifest is None:
        raise StoreError(f"{store.root}: not a run directory (it has no run.json); give the directory of a run")
    return manifest


def is_older(manifest: RunManifest) -> bool:
    """Whether it was written in an older format."""
    return manifest.pool_version != POOL_VERSION


def lacking(store: Store, manifest: RunManifest, shards: Iterable[int]) -> Iterator[str]:
    """What is not shown of a run in an older format, in words; nothing of another run. Only footers are read."""
    if not is_older(manifest):
        return
    yield (
        f"Written by thresher {manifest.thresher_version} in pool format {manifest.pool_version}; this is thresher "
        f"{__version__}, which writes format {POOL_VERSION}. Older formats can be audited; only the version that wrote the run "
        "can go on with it or publish it."
    )
    lost, strange = set[str](), set[str]()
    for shard in shards:
        files = {f"samples/{shard_name(shard)}": SAMPLES, **dict.fromkeys(judged.verdict_names(store, shard), VERDICTS)}
        for name, schema in ({"prompts": PROMPTS} | files).items():
            there = _columns(store, name)
            lost |= set(schema.names) - there if there else set()
            strange |= there - set(schema.names)
    hidden = [what for column, what in SHOWS.items() if column in lost] + list(FORMAT_1 if manifest.pool_version == 1 else ())
    if lost:
        yield f"Columns that are not there: {', '.join(sorted(lost))}; they count as null."
    if strange:
        yield f"Columns that this thresher does not know, and does not show: {', '.join(sorted(strange))}."
    if hidden:
        yield f"Not shown, because the run does not say it: {'; '.join(hidden)}."


# -- inside --------------------------------------------------------------------------------------------------------------


def _columns(store: Store, name: str) -> set[str]:
    """The columns of a table; none where it cannot be read, of which the audit tells elsewhere."""
    entry = store.entry(name)
    try:
        with store.fs.open(store.path(entry.path if entry else f"{name}.parquet"), "rb") as file:
            return set(pq.read_schema(file).names)
    except (OSError, ValueError):
        return set()
