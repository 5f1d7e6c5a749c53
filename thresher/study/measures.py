"""What was drawn at each temperature, and of each changed prompt, as one number per prompt: what a study tests.

Temperature 0 is the greedy answer (the anchor). A draw *passes* when every verifier kept it; it *departs* when its text is not
the greedy answer's. Passing draws that repeat each other, at whatever temperature, are one *solution*. All arrays have a row per
prompt; sums over them, and over draws, make every figure of thresher.study.results."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

import filters
from filters.judging import judge
from filters.similarity.edits import Tokens, nearest, tokens_of
from schemas.recipe import Recipe
from schemas.repeats import NearMissSpec
from schemas.sample import Kind, Outcome
from thresher.audit.statistics import of_k
from thresher.pool import judged as pool
from thresher.pool.store import Store
from thresher.study.draw_runs import VARIANT

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]
Bools = NDArray[np.bool_]

THIRDS = 3
LONG = 4
"""Words of a greedy answer from which similarity to it says something: between one-word answers it is 0 or 1."""
COUNTS = ("draws", "judged", "passed", "near", "departed", "departed_judged", "departed_passed", "departed_near", "again",
    "truncated", "incoherent", "tokens", "nats", "counted_nats", "alike", "compared")  # fmt: skip
"""`again`: draws that depart whose text came more than once; `alike`: sum of similarities to the greedy answer, of the
`compared`."""
_COLUMNS = ["sample_id", "prompt_id", "family", "temperature", "anchor", "completion", "completion_ids", "finish_reason",
    "cumulative_logprob", "messages", "error"]  # fmt: skip


@dataclass(frozen=True)
class Measures:
    """P prompts, T temperatures (0 first), K volumes, V changes of the prompt."""

    prompts: tuple[str, ...]
    families: NDArray[np.str_]
    """(P,)"""
    temperatures: tuple[float, ...]
    volumes: tuple[int, ...]
    """Draws per prompt: 1, 2, 4, ..., and all of them and half of them."""
    unit: str
    """What lengths count: `tokens`, or `characters` where tokens are unknown."""
    counts: Mapping[str, F64]
    """Each of COUNTS, (P, T)."""
    solutions: F64
    """Expected number of solutions among the first k draws (P, T, K): sum over solutions of 1 - C(n - c, k) / C(n, k), where c of
    n draws gave it (S. Hurlbert, Ecology 52, 1971). What could not be judged is no solution."""
    pass_at_k: F64
    """(P, T, K); NaN where fewer than k draws were judged."""
    entropy: F64
    """Of the answers' texts, in nats (P, T); Chao and Shen's estimate."""
    thirds: F64
    """Draws whose similarity to the greedy answer lies in the lower, middle and upper third (P, T, 3); zeros where that answer
    has fewer than LONG words. Of m words, m + 1 similarities are possible; each counts for an equal part of 0 to 1, so that draws
    that are equally often each of them have thirds of equal size."""
    changes: tuple[str, ...]
    changed: Mapping[str, F64]
    """Of the greedy answer to each changed prompt (P, V), NaN where there is none: `departed` and `similarity` from the greedy
    answer to the prompt as it stands, `judged`, `passed`, `known`: whether its text was drawn at temperature 1."""
    near_looked: bool = True
    """Whether the recipe has near misses looked for."""


def measure(draws: Store, variants: Store) -> Measures:
    """Read the two runs of a study, a shard in memory at a time. Raises StoreError where one is damaged."""
    parts, prompts, families = [], [], []
    anchors: dict[str, tuple[str, set[str]]] = {}
    recipe = _recipe(draws)
    temperatures = (0.0, *sorted(recipe.sampling.temperatures))
    unit = "characters"
    for shard in pool.each_judged(draws, _COLUMNS):
        part, names, some = _measured(shard, temperatures, recipe.near_miss)
        parts.append(part)
        prompts += names
        families += some
        anchors |= _known(shard)
        if shard["completion_ids"].null_count < shard.num_rows:
            unit = "tokens"
    volumes = _volumes(parts)
    changes, changed = _changed(variants, prompts, anchors)
    return Measures(
        tuple(prompts),
        np.array(families),
        temperatures,
        volumes,
        unit,
        {name: np.concatenate([part.counts[name] for part in parts]) for name in COUNTS},
        np.concatenate([part.solutions(volumes) for part in parts]),
        np.concatenate([part.pass_at_k(volumes) for part in parts]),
        np.concatenate([part.entropy for part in parts]),
        np.concatenate([part.thirds for part in parts]),
        changes,
        changed,
        recipe.near_miss is not None,
    )


def chao_shen(counts: I64, cells: I64, size: int) -> F64:
    """Entropy in nats of each of `size` cells, from `counts` (m,) of what was seen in the cell `cells` (m,): Horvitz-Thompson
    over the species seen, their shares shrunk to the sample's coverage 1 - singletons / n (A. Chao, T.-J. Shen, Environmental and
    Ecological Statistics 10, 2003). 0 for an empty cell."""
    n = np.bincount(cells, weights=counts, minlength=size)
    singles = np.bincount(cells, weights=counts == 1, minlength=size)
    singles = np.where(singles == n, n - 1, singles)  # else the coverage would be nothing
    coverage = np.where(n > 1, 1 - singles / np.maximum(n, 1), 1.0)
    share = coverage[cells] * counts / n[cells]
    seen = -np.expm1(n[cells] * np.log1p(-np.minimum(share, 1 - 1e-12)))
    return _sums(cells, -share * np.log(share) / seen, size)


# -- inside --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Part:
    """Of one shard: sums, and how often each solution was drawn, by the cell (prompt, temperature) it was drawn in."""

    counts: dict[str, F64]
    entropy: F64
    thirds: F64
    times: I64
    cells: I64

    def solutions(self, volumes: tuple[int, ...]) -> F64:
        n = self.counts["draws"].astype(np.int64)
        each = np.minimum(n.ravel()[self.cells][:, None], np.array(volumes)[None, :])
        found = np.stack(
            [_sums(self.cells, _chance(n.ravel()[self.cells], self.times, each[:, at]), n.size) for at in range(len(volumes))],
            axis=-1,
        )
        return found.reshape(*n.shape, len(volumes))

    def pass_at_k(self, volumes: tuple[int, ...]) -> F64:
        n, c = (self.counts[name].astype(np.int64).ravel() for name in ("judged", "passed"))
        found = np.full((n.size, len(volumes)), np.nan)
        for at, k in enumerate(volumes):
            enough = n >= k
            found[enough, at] = of_k(n[enough], c[enough], k)
        return found.reshape(*self.counts["judged"].shape, len(volumes))


def _chance(n: I64, c: I64, k: I64) -> F64:
    """1 - C(n - c, k) / C(n, k) for each row, whatever its k (m,)."""
    found = np.zeros(len(n))
    for one in np.unique(k).tolist():
        rows = k == one
        found[rows] = of_k(n[rows], c[rows], one) if one else 0.0
    return found


def _recipe(store: Store) -> Recipe:
    manifest = store.manifest()
    assert manifest is not None
    return Recipe.model_validate(manifest.recipe)


def _volumes(parts: list[_Part]) -> tuple[int, ...]:
    most = max((int(part.counts["draws"][:, 1:].max(initial=1)) for part in parts), default=1)
    return tuple(sorted({*(2**power for power in range(most.bit_length()) if 2**power <= most), max(1, most // 2), most}))


def _measured(
    shard: pa.Table, temperatures: tuple[float, ...], near_miss: NearMissSpec | None
) -> tuple[_Part, list[str], list[str]]:
    names = shard["prompt_id"].combine_chunks().dictionary_encode()
    prompts, families = names.dictionary.to_pylist(), shard["family"]
    _, first = np.unique(names.indices.to_numpy(), return_index=True)
    shape = (len(prompts), len(temperatures))
    anchor = shard["anchor"].to_numpy(zero_copy_only=False)
    prompt = names.indices.to_numpy().astype(np.int64)
    cell = prompt * shape[1] + np.where(anchor, 0, np.searchsorted(np.array(temperatures), shard["temperature"].to_numpy()))
    drawn = pc.is_null(shard["error"]).to_numpy(zero_copy_only=False)

    text = shard["completion"].combine_chunks().dictionary_encode().indices.to_numpy().astype(np.int64)
    greedy = np.full(len(prompts), -1)
    greedy[prompt[anchor & drawn]] = text[anchor & drawn]
    outcome, kind = (shard[name].to_numpy(zero_copy_only=False) for name in ("outcome", "kind"))
    judged = drawn & (outcome != Outcome.UNDECIDED.value)
    passed = np.isin(kind.astype(str), [Kind.HIT.value, Kind.DUPLICATE.value]) & judged
    words = tokens_of(shard["completion"])
    missed = np.isin(kind.astype(str), [Kind.MISS.value, Kind.NEAR_MISS.value]) & judged
    near = (kind == Kind.NEAR_MISS.value) & judged
    near |= _near(words, prompt, missed & anchor, passed, near_miss)
    departed = drawn & (text != greedy[prompt]) & (greedy[prompt] >= 0)
    length = pc.coalesce(pc.list_value_length(shard["completion_ids"]), pc.utf8_length(shard["completion"])).to_numpy()
    logprob = shard["cumulative_logprob"].to_numpy()
    truncated = pc.fill_null(pc.equal(shard["finish_reason"], "length"), fill_value=False).to_numpy(zero_copy_only=False)
    broken = judge(filters.build("coherence", {}), shard)["outcome"].to_numpy(zero_copy_only=False) == Outcome.DROP.value
    times, cells = _tallied(cell[drawn], text[drawn])
    edits, longer = _apart(words, prompt, anchor & drawn)
    compared = drawn & (edits >= 0)
    values = {
        "draws": drawn, "judged": judged, "passed": passed, "near": near, "departed": departed,
        "departed_judged": departed & judged, "departed_passed": departed & passed, "departed_near": departed & near,
        "again": departed & _often(cell, text, drawn),
        "truncated": truncated & drawn, "incoherent": broken & drawn, "tokens": length * drawn,
        "nats": np.nan_to_num(-logprob), "counted_nats": length * ~np.isnan(logprob),
        "alike": np.where(compared, 1 - edits / np.maximum(longer, 1), 0.0), "compared": compared,
    }  # fmt: skip
    counts = {name: _sums(cell, values[name].astype(float), shape[0] * shape[1]).reshape(shape) for name in COUNTS}

    entropy = chao_shen(times, cells, shape[0] * shape[1]).reshape(shape)
    times, cells = _tallied(cell[passed], solution_of(shard, text)[passed])
    lengths = np.zeros(len(prompts), np.int64)
    lengths[prompt[anchor & drawn]] = np.diff(words.starts)[anchor & drawn]
    told = compared & ~anchor & (lengths[prompt] >= LONG)
    masses = _masses(edits[told], longer[told])
    thirds = np.stack([_sums(cell[told], masses[:, at], shape[0] * shape[1]) for at in range(THIRDS)], axis=-1)
    return (
        _Part(counts, entropy, thirds.reshape(*shape, THIRDS), times, cells),
        prompts,
        families.take(pa.array(first)).to_pylist(),
    )


def _near(tokens: Tokens, prompt: I64, missed: Bools, passed: Bools, spec: NearMissSpec | None) -> Bools:
    """Which of the misses lie near an answer of their prompt that passed, as the filter near_miss tells it; it is not asked about
    greedy answers."""
    found = np.zeros(len(prompt), bool)
    if spec is not None:
        order = np.argsort(prompt, kind="stable")
        seekers, targets = order[missed[order]], order[passed[order]]
        at, _ = nearest(tokens, prompt, seekers, targets, edits=spec.edits, share=spec.share, common=spec.common)
        found[seekers[at >= 0]] = True
    return found


def _often(cell: I64, text: I64, drawn: Bools) -> Bools:
    """Which draws have a text that came more than once in their cell."""
    _, place, times = np.unique(np.stack([cell, text]), axis=1, return_inverse=True, return_counts=True)
    found: Bools = (np.bincount(place.ravel()[drawn], minlength=len(times)) > 1)[place.ravel()] & drawn
    return found


def _sums(cells: I64, values: F64, size: int) -> F64:
    """Sums of values (m,) by their cells (size,)."""
    return np.bincount(cells, weights=values, minlength=size).astype(np.float64)


def _tallied(cells: I64, what: I64) -> tuple[I64, I64]:
    """How often each thing came in each cell, and that cell."""
    pairs, times = np.unique(np.stack([cells, what]), axis=1, return_counts=True)
    return times.astype(np.int64), pairs[0].astype(np.int64)


def solution_of(shard: pa.Table, text: I64) -> I64:
    """A number for each sample's solution: the text of what it repeats, at last, or its own. `text` numbers the texts."""
    repeats = pc.index_in(shard["nearest"], shard["sample_id"].combine_chunks())
    duplicate = pc.fill_null(pc.equal(shard["kind"], Kind.DUPLICATE.value), fill_value=False).to_numpy(zero_copy_only=False)
    at = pc.fill_null(repeats, -1).to_numpy()
    to = np.where(duplicate & (at >= 0), at, np.arange(shard.num_rows))
    while not np.array_equal(to[to], to):
        to = to[to]
    found: I64 = text[to]
    return found


def _apart(tokens: Tokens, prompt: I64, anchors: Bools) -> tuple[I64, I64]:
    """Edits between each sample and its prompt's greedy answer, and the words of the longer one; -1 where there is none."""
    words, order = np.diff(tokens.starts), np.argsort(prompt, kind="stable")
    found, edits = nearest(tokens, prompt, order, order[anchors[order]], edits=2**31 - 1, share=1.0, common=0.0)
    apart, longer = np.full(len(prompt), -1, np.int64), np.zeros(len(prompt), np.int64)
    apart[order] = np.where(found >= 0, edits, -1)
    longer[order] = np.maximum(words[order], words[np.maximum(found, 0)])
    return apart, longer


def _masses(edits: I64, longer: I64) -> F64:
    """How much of each draw lies in each third of similarity (m, 3); a row sums to 1."""
    low, high = (longer - edits) / (longer + 1), (longer - edits + 1) / (longer + 1)
    ends = np.arange(THIRDS + 1) / THIRDS
    inside = np.minimum(high[:, None], ends[1:]) - np.maximum(low[:, None], ends[:-1])
    found: F64 = np.maximum(inside, 0) * (longer + 1)[:, None]
    return found


def _known(shard: pa.Table) -> dict[str, tuple[str, set[str]]]:
    """By prompt: the greedy answer, and what was drawn at temperature 1."""
    found: dict[str, tuple[str, set[str]]] = {}
    drawn = shard.filter(pc.is_null(shard["error"]))
    for prompt, text in _texts(drawn.filter(drawn["anchor"])):
        found[prompt] = (text, set())
    ones = drawn.filter(pc.and_(pc.invert(drawn["anchor"]), pc.equal(drawn["temperature"], 1.0)))
    for prompt, text in _texts(ones):
        if prompt in found:
            found[prompt][1].add(text)
    return found


def _texts(rows: pa.Table) -> Iterator[tuple[str, str]]:
    return zip(rows["prompt_id"].to_pylist(), rows["completion"].to_pylist(), strict=True)


def _changed(
    store: Store, prompts: list[str], known: Mapping[str, tuple[str, set[str]]]
) -> tuple[tuple[str, ...], dict[str, F64]]:
    """The changes by name, and what is measured of their greedy answers."""
    at = {prompt: row for row, prompt in enumerate(prompts)}
    rows: list[tuple[int, str, str, str, bool, bool]] = []
    for shard in pool.each_judged(store, [*_COLUMNS, "metadata"]):
        some = shard.filter(pc.and_(shard["anchor"], pc.is_null(shard["error"])))
        columns = (some[name].to_pylist() for name in ("metadata", "completion", "outcome", "kind"))
        for metadata, text, outcome, kind in zip(*columns, strict=True):
            made = json.loads(metadata)[VARIANT]
            if made["of"] in known:
                judged, passed = outcome != Outcome.UNDECIDED.value, kind in {Kind.HIT.value, Kind.DUPLICATE.value}
                rows.append((at[made["of"]], made["name"], made["of"], text, judged, passed))
    names = tuple(dict.fromkeys(name for _, name, *_ in rows))
    column = {name: number for number, name in enumerate(names)}
    found = {
        name: np.full((len(prompts), len(names)), np.nan) for name in ("departed", "similarity", "judged", "passed", "known")
    }
    alike = _alike([text for *_, text, _, _ in rows], [known[prompt][0] for _, _, prompt, *_ in rows])
    for (row, name, prompt, text, judged, passed), similar in zip(rows, alike, strict=True):
        greedy, drawn = known[prompt]
        place = row, column[name]
        found["departed"][place], found["similarity"][place] = text != greedy, similar
        found["judged"][place], found["passed"][place], found["known"][place] = judged, judged and passed, text in drawn
    return names, found


def _alike(texts: list[str], others: list[str]) -> list[float]:
    """1 - edits / words of the longer, of each pair."""
    if not texts:
        return []
    tokens = tokens_of(pa.array([*texts, *others], pa.string()))
    count, words = len(texts), np.diff(tokens.starts)
    groups = np.tile(np.arange(count), 2)
    _, edits = nearest(tokens, groups, np.arange(count), np.arange(count, 2 * count), edits=2**31 - 1, share=1.0, common=0.0)
    found: list[float] = (1 - edits / np.maximum(1, np.maximum(words[:count], words[count:]))).tolist()
    return found
