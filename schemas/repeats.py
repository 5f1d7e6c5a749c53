"""Which hits of a recipe's run repeat others, and which misses are near misses."""

from typing import Annotated, Literal

from pydantic import Field

from schemas.engines import ModelSpec, VllmEngine
from schemas.part import Part, Similarity


class SemanticSpec(Part):
    """Duplicates in other words, found by an embedding model: any sentence-transformers model that vLLM runs."""

    model: ModelSpec
    """A directory, relative to the recipe, or a Hub id."""
    engine: VllmEngine = VllmEngine()
    """vLLM's settings. Every filter process starts the model and takes its share of the GPU in addition to the sampler's, so set
    gpu_memory_utilization on both."""
    threshold: Similarity = 0.9
    """Least cosine similarity of the embeddings of duplicates. Texts longer than the model's limit are not compared."""


class ReleasedSpec(Part):
    """Samples that were released before, by any run that names the same index."""

    index: str
    """Folder of the index, relative to the recipe; it is created if it does not exist. A run searches it before it writes its
    dataset, and adds its own hits together with the dataset."""
    threshold: Similarity = 0.7
    """Least similarity of duplicates of released samples, estimated from their sketches."""


class DedupeSpec(Part):
    """Which hits repeat others, and which copy stays. Equal texts (after NFKC, in lower case, ignoring white space) are always
    duplicates. Others are compared by the Jaccard similarity of their word bigrams, or of runs of four characters below eight
    words."""

    within_prompt: Similarity | None = 0.7
    """Least similarity of duplicates among the samples of a prompt; null does not search for them."""
    within_run: Similarity | None = 0.7
    """Least similarity of duplicates of different prompts; null does not search for them."""
    semantic: SemanticSpec | None = None
    """Search for duplicates in other words among the samples of a prompt; null does not."""
    released: ReleasedSpec | None = None
    """Search for duplicates of samples that were released before; null does not."""
    run_characters: Annotated[int, Field(ge=0)] = 200
    """Characters below which a completion is compared only with those of the same prompt, because two prompts may well have the
    same short answer."""
    guard: Literal["answer", "numbers", "none"] = "answer"
    """What duplicates must agree in. `answer`: the reference that a verifier accepted, or the numbers in the text if no verifier
    accepted one; `numbers`: always the numbers in the text; with both also signs, operators, comparisons, units, dates,
    negations, the order of numbers and indentation; `none`: nothing."""
    keep: tuple[Literal["highest_score", "shortest", "likeliest"], ...] = ("highest_score", "shortest", "likeliest")
    """Which copy stays: the first of these that distinguishes two samples decides, and finally the smallest sample_id."""


class NearMissSpec(Part):
    """Which misses are near misses: those a few words away from a hit of the same prompt, or from its anchor if that passed."""

    edits: Annotated[int, Field(ge=0)] = 3
    """Most words or signs inserted, deleted or replaced. For longer texts `share` allows more."""
    share: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Share of the longer text's words that may differ, if that is more than `edits`."""
    common: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Least share of words that both texts have. It matters below six words."""
