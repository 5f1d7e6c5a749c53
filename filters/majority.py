"""Agreement among a prompt's samples, for prompts without a reference: self-consistency (Wang et al. 2022, arXiv 2203.11171).

Every sample has one vote for its canonical answer. The answer with the most votes is the pseudo-reference, which stands in the
detail of every verdict. Ties, and leads below the margin, abstain. Votes of one model are not independent: agreement is what it
says, not proof.
"""

import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from filters.base import Filter, Role, Scope
from filters.judging import per_prompt
from filters.maths.cleaning import cleaned
from filters.maths.extraction import final_answer, hedged
from filters.maths.plain import number_of
from schemas.sample import Sample, Verdict

SHOWN_CHARS = 200


class Config(BaseModel):
    """Parameters of `majority`."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    answer: Literal["maths", "text"] = "maths"
    """What votes: `maths` reads the final answer as math_answer does and takes numbers by their value; `text` is the whole
    completion, without regard to case and white space."""
    min_votes: int = Field(default=3, ge=1)
    """Votes that must have been cast, of samples that an answer could be read from."""
    margin: float = Field(default=0.1, ge=0, lt=1)
    """Share of the votes by which the first must lead the second. A tie abstains at any margin."""


def canonical_maths(text: str) -> str | None:
    """The final answer in the form that it votes in, or None where there is none or several."""
    found = final_answer(text).answer
    if found is None or hedged(found):
        return None
    answer = cleaned(found)
    number = number_of(answer.lstrip("$ "))
    return format(number.normalize(), "f") if number is not None else answer.replace(" ", "") or None


def canonical_text(text: str) -> str | None:
    """The whole completion, folded."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split()) or None


def build(config: Config) -> Filter:
    """Drop `minority_answer`; undecided with `no_majority` (a tie, a small lead, few votes) and `unparsed`. The score is the
    share of the votes for the sample's own answer."""
    canonical: Callable[[str], str | None] = canonical_maths if config.answer == "maths" else canonical_text

    def judge(samples: Sequence[Sample]) -> list[Verdict]:
        answers = [canonical(sample.completion) for sample in samples]
        votes = Counter(answer for answer in answers if answer is not None)
        cast = votes.total()
        # Equal counts are ordered by the answer itself, so that nothing depends on the order of the samples.
        first, *others = sorted(votes.items(), key=lambda item: (-item[1], item[0])) or [("", 0)]
        lead = (first[1] - (others[0][1] if others else 0)) / cast if cast else 0.0
        noted = {"pseudo_reference": first[0][:SHOWN_CHARS], "votes": first[1], "of": cast, "margin": round(lead, 4)}
        agreed = cast >= config.min_votes and lead > 0 and lead >= config.margin
        return [_verdict(answer, first[0], votes, agreed=agreed, noted=noted) for answer in answers]

    def _verdict(answer: str | None, winner: str, votes: Counter[str], *, agreed: bool, noted: dict[str, object]) -> Verdict:
        if answer is None:
            return Verdict.undecided("unparsed", **noted)
        if not agreed:
            return Verdict.undecided("no_majority", **noted)
        share = votes[answer] / votes.total()
        if answer == winner:
            return Verdict.keep(share, **noted)
        return Verdict.drop("minority_answer", share, found=answer[:SHOWN_CHARS], **noted)

    columns = ("prompt_id", "completion")
    return Filter(
        "majority",
        "1",
        Scope.PROMPT,
        Role.VERIFIER,
        per_prompt(judge, columns),
        columns,
        config.model_dump(mode="json"),
        cost_us=15.0,
    )
