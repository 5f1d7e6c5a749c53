"""Keep the answer that most samples of a prompt agree on: self-consistency (Wang et al. 2022, arXiv 2203.11171).

For prompts without a reference. Every sample has one vote for its answer; answers that math_answer finds equal are one. The
answer with the most votes is the pseudo-reference, which the detail of every verdict names. Ties, and leads below the margin, are
undecided. The votes of one model are not independent, so agreement is not proof.
"""

import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from filters.base import Filter, Role, Scope
from filters.judging import per_prompt
from filters.maths.cleaning import cleaned, number_of
from filters.maths.extraction import final_answer, hedged
from filters.supervise import Pool
from filters.tools import Tools
from schemas.sample import Sample, Verdict

SHOWN_CHARS = 200
COMPARED = 32
"""Most answers of a prompt that are compared with each other, those with the most votes first; others are equal only as text."""


class Config(BaseModel):
    """Parameters of `majority`."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    answer: Literal["maths", "text"] = "maths"
    """What votes. `maths` reads and compares the final answer as math_answer does; `text` takes the whole completion, ignoring
    case and white space."""
    min_votes: int = Field(default=3, ge=1)
    """Least number of votes, that is of samples with a readable answer. Below it the samples are undecided."""
    margin: float = Field(default=0.1, ge=0, lt=1)
    """Share of the votes by which the first answer must lead the second. A tie is undecided at any margin."""


def canonical_maths(text: str) -> str | None:
    """The final answer in the form in which it votes; None where there is no answer or more than one."""
    answer = final_answer(text).answer
    if answer is None or hedged(answer):
        return None
    answer = cleaned(answer)
    number = number_of(answer.lstrip("$ "))
    return format(number.normalize(), "f") if number is not None else answer.replace(" ", "") or None


def canonical_text(text: str) -> str | None:
    """The whole completion in NFKC and lower case, with single spaces; None if it is empty."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split()) or None


def merged(votes: Mapping[str, int], pool: Pool) -> tuple[dict[str, str], set[frozenset[str]]]:
    """Name for each answer the one with which it votes: of answers that are equal, or equal to one between them, the one with the
    most votes, and of these the first by its text. Nothing depends on the order of the samples.
    Also the pairs of answers that are shown to differ."""
    ranked = sorted(votes, key=lambda answer: (-votes[answer], answer))
    names = {answer: answer for answer in ranked}
    pairs = [pair for pair in combinations(ranked[:COMPARED], 2) if any(number_of(answer) is None for answer in pair)]
    apart: set[frozenset[str]] = set()
    for (first, second), compared in zip(pairs, pool.map([list(pair) for pair in pairs]), strict=True):
        if compared.kind == "done" and compared.value == "different":
            apart.add(frozenset((first, second)))
        if compared.kind == "done" and compared.value == "equal" and names[first] != names[second]:
            kept, given_up = sorted((names[first], names[second]), key=ranked.index)
            names = {answer: kept if name == given_up else name for answer, name in names.items()}
    return names, apart


def build(config: Config, tools: Tools) -> Filter:
    """Drop `minority_answer`; undecided with `no_majority` (a tie, a small lead, few votes), `unparsed`, and `unverifiable` where
    an answer is neither shown to equal the majority's nor to differ from it.

    The score is the share of the votes for the sample's own answer.
    """
    canonical: Callable[[str], str | None] = canonical_maths if config.answer == "maths" else canonical_text
    pool = tools.workers.pool("filters.maths.math_answer:worker", seconds=5.0, memory_mib=2048)

    def judge(samples: Sequence[Sample]) -> list[Verdict]:
        answers = [canonical(sample.completion) for sample in samples]
        votes = Counter(answer for answer in answers if answer is not None)
        open_names: set[str] = set()
        if config.answer == "maths" and any(number_of(answer) is None for answer in votes) and len(votes) > 1:
            names, apart = merged(votes, pool)
            answers = [None if answer is None else names[answer] for answer in answers]
            votes = Counter(answer for answer in answers if answer is not None)
            first = min(votes, key=lambda answer: (-votes[answer], answer))
            open_names = set(votes) - {first} - _different(first, names, apart)
        total = votes.total()
        # Equal counts are ordered by the answer, so that nothing depends on the order of the samples.
        ranking = sorted(votes.items(), key=lambda item: (-item[1], item[0])) or [("", 0)]
        winner, most = ranking[0]
        lead = (most - (ranking[1][1] if len(ranking) > 1 else 0)) / total if total else 0.0
        vote = {"pseudo_reference": winner[:SHOWN_CHARS], "votes": most, "of": total, "margin": round(lead, 4)}
        agreed = total >= config.min_votes and lead > 0 and lead >= config.margin
        return [_verdict(answer, winner, votes, agreed=agreed, vote=vote, unproved=answer in open_names) for answer in answers]

    columns = ("prompt_id", "completion")
    parameters = config.model_dump(mode="json")
    judge_prompts = per_prompt(judge, columns)
    return Filter("majority", "3", Scope.PROMPT, Role.VERIFIER, judge_prompts, columns, parameters, cost_us=15.0)


def _different(winner: str, names: Mapping[str, str], apart: set[frozenset[str]]) -> set[str]:
    """The names of the answers that are shown to differ from the winner: each of theirs from each of its."""
    groups = {name: [answer for answer, its in names.items() if its == name] for name in set(names.values())}

    def differ(first: str, second: str) -> bool:
        return frozenset((first, second)) in apart or (number_of(first) is not None and number_of(second) is not None)

    return {name for name, group in groups.items() if all(differ(one, other) for one in groups[winner] for other in group)}


def _verdict(
    answer: str | None, winner: str, votes: Counter[str], *, agreed: bool, vote: dict[str, object], unproved: bool
) -> Verdict:
    if answer is None:
        return Verdict.undecided("unparsed", **vote)
    if not agreed:
        return Verdict.undecided("no_majority", **vote)
    share = votes[answer] / votes.total()
    if answer == winner:
        return Verdict.keep(share, **vote)
    if unproved:
        return Verdict.undecided("unverifiable", found=answer[:SHOWN_CHARS], **vote)
    return Verdict.drop("minority_answer", share, found=answer[:SHOWN_CHARS], **vote)
