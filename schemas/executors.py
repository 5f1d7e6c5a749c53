"""Where the run of a recipe is executed, and how it is cut into shards."""

from typing import Annotated, Literal

from pydantic import Field

from schemas.part import Part


class RunSpec(Part):
    """How a run is cut into shards. Only `salt` changes what is sampled."""

    salt: str = ""
    """A different salt draws different samples. A scheduled run sets its own."""
    shard_samples: Annotated[int, Field(ge=1)] = 2048
    """Samples per shard, in whole prompts; fewer where they may become so long (max_tokens) that a shard would exceed 33,554,432
    tokens, about half a gigabyte in memory. A shard is the unit that is written, retried and resumed."""
    shard_bytes: Annotated[int, Field(ge=1)] = 256_000_000
    """Most bytes of text per shard. A sample's row holds the text of its prompt, so a prompt counts as often as it may be
    sampled, with 4 bytes for each token of its completions. A prompt with more is a shard of its own. Your own samples are cut by
    it too. Where shards are full, two are sampled at the same time, and a run needs about 12 times as much memory. Changing it
    has no effect on a run whose prompts are planned already."""
    shards_in_flight: Annotated[int, Field(ge=1)] | None = None
    """Shards that are sampled at the same time, so that the engine stays busy between two shards; null takes as many as fill the
    engine."""
    filter_workers: Annotated[int, Field(ge=0)] = 1
    """Processes that filter while sampling continues; 0 filters in the main process."""
    verifier_workers: Annotated[int, Field(ge=1)] | None = None
    """Supervised processes of each filter that parses or runs what a model wrote; null takes one per core."""
    dedupe_gib: Annotated[float, Field(gt=0)] = 4
    """Memory of the search for duplicates within the run, in GiB. A search that needs more works through files."""
    scratch: str | None = None
    """Folder of those files, relative to the recipe, on storage that all machines of the executor reach. Null takes RUN/scratch.
    If that is on an object store, null takes the temporary folder of the main machine, which then searches alone on a Ray
    cluster."""
    check_golds: Annotated[int, Field(ge=0)] = 256
    """Number of prompts, spread over the run, whose references the verifiers must accept before sampling starts; 0 skips the
    check."""
    filter_order: Literal["cheapest", "written"] = "cheapest"
    """`cheapest`: among neighbouring filters that judge each sample by itself, the cheapest runs first, which may change the
    reason of a drop but not what is kept; `written`: the recipe's order."""


class LocalExecutorSpec(Part):
    """This machine: one engine, and filters in processes beside it."""

    kind: Literal["local"] = "local"


class RayExecutorSpec(Part):
    """A Ray cluster: an actor for each replica of the engine, and filters as tasks on its CPUs. The run directory, and the files
    that the recipe names, must be on storage that all machines reach under the same path."""

    kind: Literal["ray"]
    address: str | None = "auto"
    """Address of the cluster. `auto` is the cluster that this machine belongs to; ray://HOST:10001 is a remote one, which needs
    your consent (docs/security.md); null starts one on this machine."""
    replicas: Annotated[int, Field(ge=1)] = 1
    """Number of engines, each in an actor of its own. `thresher scale RUN N` changes it during a run."""
    autoscaling: bool = False
    """The cluster adds machines on demand: start with as many replicas as have room. Otherwise a cluster without room for all
    replicas is refused."""
    gpus_per_replica: Annotated[float, Field(ge=0)] | None = None
    """GPUs of a replica; null takes engine.tensor_parallel_size times engine.data_parallel_size if the cluster has GPUs, and
    0 otherwise."""
    cpus_per_replica: Annotated[float, Field(ge=0)] = 1
    """CPUs of a replica. Each filter task takes one more."""
    resources_per_replica: dict[str, Annotated[float, Field(gt=0)]] = Field(default_factory=dict)
    """Custom resources of a replica, as given to machines by `ray start --resources`."""


ExecutorSpec = Annotated[LocalExecutorSpec | RayExecutorSpec, Field(discriminator="kind")]
