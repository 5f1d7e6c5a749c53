"""Sums over the draws of a run, computed by DuckDB, that the statistics follow from.

The sums of different prompts can be added, so workers can each sum up some of the prompts.
"""

from collections import Counter
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

from thresher.pool.model_rows import number_sql
from thresher.pool.run import Run

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

SIMILARITY_BINS = 20
KINDS = ("hit", "duplicate", "near_miss", "miss", "unfit", "undecided", "all")
"""What became of samples; `unfit` were dropped for their form."""
ANSWERS_OF = ("all", "passed", "near_miss", "miss")
"""Groups of draws whose answers have an entropy."""
AGREEMENT_COUNTS = (
    "prompts", "draws", "same", "judged", "agree", "where_passed", "passed_where_passed", "where_failed", "passed_where_failed",
)  # fmt: skip
"""What `DrawSums.agreement` counts of each family, in the order of the query's columns."""


@dataclass(frozen=True)
class DrawSums:
    """Sums over all draws of some prompts."""

    prompts: Counter[tuple[str, int, int]] = field(default_factory=Counter)
    """Prompts by family, judged draws, and draws that passed."""
    models: Counter[tuple[str, int, int]] = field(default_factory=Counter)
    """The same by model, where there are several: by its number, as text."""
    agreement: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Draws by family and what they have in common with the anchor (AGREEMENT_COUNTS)."""
    entropy: Counter[tuple[str, str, float, str]] = field(default_factory=Counter)
    """By family, group of draws (ANSWERS_OF), and the entropy of a prompt's answers rounded to a thousandth of a nat: the `sum`
    of the entropies, and the numbers of `prompts` and `draws`."""
    similarity: Counter[tuple[str, int]] = field(default_factory=Counter)
    """Near misses and duplicates by the twentieth of their similarity."""
    likely: Counter[tuple[str, str]] = field(default_factory=Counter)
    """By kind: the number of `samples` with log-probabilities, and the sums of their `logprob` and `tokens`."""
    tokens: Counter[tuple[str, int, bool | None]] = field(default_factory=Counter)
    """Samples by kind, number of tokens of their answer, and whether they are truncated; null where that is unknown."""
    characters: Counter[tuple[str, int, bool | None]] = field(default_factory=Counter)
    """The same for samples with an unknown number of tokens, by their number of characters."""
    reasoning_tokens: Counter[tuple[str, int, bool | None]] = field(default_factory=Counter)
    """Samples that reason by kind, number of tokens of their reasoning, and whether they ended inside it."""
    reasoning_characters: Counter[tuple[str, int, bool | None]] = field(default_factory=Counter)
    """The same for samples with an unknown number of those tokens."""

    def add(self, other: "DrawSums") -> None:
        """Add the sums of other prompts."""
        for table in fields(self):
            getattr(self, table.name).update(getattr(other, table.name))


def first_draws(run: Run) -> int | None:
    """Number of draws of each prompt that an adaptive run makes whatever their results; they have the lowest `index`. None if the
    run is not adaptive, so that all draws count."""
    sampling = run.recipe.sampling
    adaptive = run.sampled and sampling.target_hits is not None
    return sampling.samples_per_prompt * len(sampling.temperatures) if adaptive else None


def draws_query(run: Run) -> str:
    """The SQL of the table `drawn`: one row for each readable sample, with the columns that `sums_of` needs. Where several models
    answer a prompt, each counts as one that answers a prompt of its own."""
    several = len(run.models) > 1
    return _DRAWN.format(
        model=number_sql(run) if several else "-1",
        own="prompt_id || chr(31) || model" if several else "prompt_id",
        # Log-probabilities are large: they are read only if nothing else tells the number of tokens.
        tokens="len(completion_ids)" if run.sampled else "coalesce(len(completion_ids), len(logprobs))",
    )


def sums_of(connection: "DuckDBPyConnection", first: int | None = None, *, by_model: bool = False) -> DrawSums:
    """Sum up a table `drawn`, with `by_model` also the prompts of each model. In an adaptive run pass@k, agreement and entropy
    use only the `first` draws of each prompt, because the number of later draws depends on the results."""
    only_first = "" if first is None else f'and "index" < {first}'

    def rows(query: str) -> list[Any]:
        return list(connection.execute(query).fetchall())

    sums = DrawSums()
    for *key, prompts in rows(_PROMPTS.format(only_first=only_first)):
        sums.prompts[tuple(key)] += prompts
    for number, *cell, prompts in rows(_MODELS.format(only_first=only_first)) if by_model else ():
        sums.models[str(number), cell[0], cell[1]] += prompts
    for family, *counts in rows(_AGREEMENT.format(only_first=only_first)):
        sums.agreement.update({(family, name): n for name, n in zip(AGREEMENT_COUNTS, counts, strict=True)})
    for family, of, cell, *values in rows(_ENTROPY.format(only_first=only_first)):
        names = ("sum", "prompts", "draws")
        sums.entropy.update({(family, of, cell, name): n for name, n in zip(names, values, strict=True)})
    for *key, samples in rows(_SIMILARITY):
        sums.similarity[tuple(key)] += samples
    for kind, *values in rows(_LIKELY):
        sums.likely.update({(kind, name): n for name, n in zip(("samples", "logprob", "tokens"), values, strict=True)})
    for kind, tokens, characters, truncated, samples in rows(_LENGTHS):
        if tokens is not None:
            sums.tokens[kind, tokens, truncated] += samples
        else:
            sums.characters[kind, characters, truncated] += samples
    for kind, tokens, characters, cut, samples in rows(_REASONING):
        if tokens is not None:
            sums.reasoning_tokens[kind, tokens, cut] += samples
        else:
            sums.reasoning_characters[kind, characters, cut] += samples
    return sums


# -- inside --------------------------------------------------------------------------------------------------------------

# Materialized, or DuckDB would reduce texts to hashes and lengths after the join, which holds them in memory.
_DRAWN = """
with s as materialized (
    select shard, "row", prompt_id, {model} as model, family, "index", anchor, finish_reason, cumulative_logprob as logprob,
        {tokens} as tokens,
        reasoning_tokens, len(reasoning) as reasoning_characters, answer is null as cut,
        coalesce(len(answer), 0) as characters, hash(answer) as text, error is not null as failed
    from _samples where unreadable is null
)
select s.* exclude (prompt_id), {own} as prompt_id, j.outcome, j.kind, j.similarity
from s join _judged j on s.shard = j.shard and s."row" = j."row"
"""
_KIND = "case when outcome = 'undecided' then 'undecided' when kind is null then 'unfit' else kind end"
_PROMPTS = """
select family, n, c, count(*) from (
    select family, prompt_id, count(*) as n, count(*) filter (kind in ('hit', 'duplicate')) as c
    from drawn where not anchor and outcome <> 'undecided' {only_first} group by all
) group by all
"""
_MODELS = """
select model, n, c, count(*) from (
    select model, prompt_id, count(*) as n, count(*) filter (kind in ('hit', 'duplicate')) as c
    from drawn where model >= 0 and not anchor and outcome <> 'undecided' {only_first} group by all
) group by all
"""
_AGREEMENT = """
with anchors as (
    select prompt_id, any_value(text) as text, any_value(kind in ('hit', 'duplicate')) as passed
    from drawn where anchor and outcome <> 'undecided' group by all
), draws as (
    select d.family, d.prompt_id, d.text = a.text as same, coalesce(a.passed, false) as greedy,
        d.outcome <> 'undecided' as judged, coalesce(d.kind in ('hit', 'duplicate'), false) as passed
    from drawn d join anchors a using (prompt_id) where not d.anchor {only_first}
)
select family, count(distinct prompt_id), count(*), count(*) filter (same), count(*) filter (judged),
    count(*) filter (judged and passed = greedy), count(*) filter (judged and greedy),
    count(*) filter (judged and greedy and passed), count(*) filter (judged and not greedy),
    count(*) filter (judged and not greedy and passed)
from draws group by family
"""
_ENTROPY = """
with counted as (
    select family, prompt_id, text, case when kind in ('hit', 'duplicate') then 'passed' else kind end as of,
        count(*)::double as x
    from drawn where not anchor and not failed {only_first} group by all
), texts as (
    select family, prompt_id, 'all' as of, sum(x) as x from counted group by family, prompt_id, text
    union all select family, prompt_id, of, x from counted where of is not null
), prompts as (
    select family, prompt_id, of, sum(x) as n, 1 - least(count(*) filter (x = 1), sum(x) - 1) / sum(x) as seen
    from texts group by all having sum(x) > 1
), each as (
    select family, of, any_value(n) as n,
        sum(-(seen * x / n) * ln(seen * x / n) / (1 - pow(1 - seen * x / n, n))) as entropy
    from texts join prompts using (family, prompt_id, of) group by family, prompt_id, of
)
select family, of, round(entropy, 3), sum(entropy), count(*), sum(n) from each group by all
"""
_SIMILARITY = f"""
select kind, least({SIMILARITY_BINS - 1}, floor({SIMILARITY_BINS} * similarity))::integer, count(*) from drawn
where kind in ('near_miss', 'duplicate') and similarity is not null and not anchor group by all
"""
_LIKELY = f"""
select {_KIND}, count(*), sum(logprob), sum(tokens)::bigint from drawn
where not anchor and logprob is not null and tokens > 0 group by all
"""
_LENGTHS = f""" select {_KIND}, tokens - coalesce(reasoning_tokens, 0), case when tokens is null then characters end,
finish_reason = 'length', count(*) from drawn where not anchor and (tokens is not null or characters is not null) group by all """
_REASONING = f"""
select {_KIND}, reasoning_tokens, case when reasoning_tokens is null then reasoning_characters end, cut, count(*)
from drawn where not anchor and reasoning_characters is not null group by all
"""
