"""regex, majority, python, instruction, reasoning_gym and decontaminate: what each keeps, drops and leaves undecided."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

import filters
from filters.base import FilterError
from filters.decontaminate import words_of
from filters.instruction import CHECKS
from filters.judging import judge
from filters.majority import canonical_maths, canonical_text
from schemas.sample import SAMPLES, to_json


def table(*rows: dict[str, Any]) -> pa.Table:
    """Pool rows with what a filter reads; everything else is neutral."""
    base = {"family": "f", "anchor": False, "messages": [], "metadata": "{}", "finish_reason": "stop", "prompt_id": "p"}
    made = []
    for number, row in enumerate(rows):
        reference = None if row.get("reference") is None else to_json(row["reference"])
        made.append({**base, "sample_id": f"s{number}", "index": number, **row, "reference": reference})
    return pa.Table.from_pylist(made, schema=SAMPLES)


def verdicts(name: str, parameters: dict[str, Any], *rows: dict[str, Any]) -> list[dict[str, Any]]:
    found = judge(filters.build(name, parameters), table(*rows)).to_pylist()
    return [{**one, "detail": json.loads(one["detail"] or "{}"), "said": one["reason"] or one["outcome"]} for one in found]


def said(name: str, parameters: dict[str, Any], *rows: dict[str, Any]) -> list[str]:
    return [one["said"] for one in verdicts(name, parameters, *rows)]


# -- regex -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parameters", "completion", "reason"),
    [
        ({"pattern": r"\d+"}, "it is 42", "keep"),
        ({"pattern": r"\d+"}, "none", "no_match"),
        ({"pattern": r"\d+", "where": "whole"}, "it is 42", "no_match"),
        ({"pattern": r"\d+", "where": "whole"}, "42", "keep"),
        ({"pattern": r"Total: \d+", "where": "last_line"}, "a\nTotal: 3\n", "keep"),
        ({"pattern": r"Total: \d+", "where": "last_line"}, "Total: 3\nb", "no_match"),
        ({"pattern": "(?i)as an ai", "forbid": True}, "As an AI I", "forbidden_match"),
        ({"pattern": "(?i)as an ai", "forbid": True}, "fine", "keep"),
        ({"pattern": r"= (?P<answer>-?\d+)$"}, "6 * 7 = 42", "keep"),
        ({"pattern": r"= (?P<answer>-?\d+)$"}, "6 * 7 = 43", "wrong_answer"),
        ({"pattern": r"= (?P<answer>-?\d+)$"}, "6 * 7", "no_match"),
        ({"pattern": "\u00e4+"}, "b\u00e4\u00e4h", "keep"),
    ],
)
def test_regex(parameters: dict[str, Any], completion: str, reason: str) -> None:
    """Some part, all of it or its last line; forbidden; or an answer that is compared."""
    assert said("regex", parameters, {"completion": completion, "reference": 42}) == [reason]


def test_regex_offsets_are_characters() -> None:
    """The span lies where it says, beyond ASCII too."""
    text = "\u00e4\u00f6\u00fc \U0001f600 bad end"
    (one,) = verdicts("regex", {"pattern": "bad", "forbid": True}, {"completion": text})

    assert text[one["detail"]["start"] : one["detail"]["end"]] == one["detail"]["span"] == "bad"


def test_regex_takes_linear_time_and_refuses_what_is_not() -> None:
    """The pattern hangs a backtracking engine; look-around is refused at build, with its place."""
    assert said("regex", {"pattern": "^(a+)+$"}, {"completion": "a" * 5000 + "!"}) == ["no_match"]
    with pytest.raises(FilterError, match=r"parameters\.pattern"):
        filters.build("regex", {"pattern": "(?=a)b"})
    with pytest.raises(FilterError, match="group named answer"):
        filters.build("regex", {"pattern": "(?P<answer>a)", "forbid": True})


def test_regex_without_a_reference_to_compare_is_undecided() -> None:
    """No reference, and one that is no text."""
    pattern = {"pattern": "(?P<answer>a)"}
    assert said("regex", pattern, {"completion": "a"}, {"completion": "a", "reference": {"b": 1}}) == [
        "no_reference",
        "bad_reference",
    ]


# -- majority ----------------------------------------------------------------------------------------------------------------


def votes(*answers: str, **parameters: Any) -> list[dict[str, Any]]:
    return verdicts("majority", parameters, *({"completion": answer} for answer in answers))


def test_the_majority_is_kept_and_named() -> None:
    """Answers vote in their canonical form; the vote stands in every detail."""
    found = votes(
        "\\boxed{42}", "The answer is 42.0", "#### 1,000", "\\boxed{42}", "I do not know what it might be at all, sorry"
    )

    assert [one["said"] for one in found] == ["keep", "keep", "minority_answer", "keep", "unparsed"]
    assert {to_json({k: v for k, v in one["detail"].items() if k != "found"}) for one in found} == {
        '{"margin":0.5,"of":4,"pseudo_reference":"42","votes":3}'
    }
    assert [one["score"] for one in found] == [0.75, 0.75, 0.25, 0.75, None]


def test_ties_small_leads_and_few_votes_abstain() -> None:
    """And nothing depends on the order of the samples."""
    assert {one["said"] for one in votes("1", "2", "1", "2")} == {"no_majority"}
    assert {one["said"] for one in votes("1", "1")} == {"no_majority"}
    assert {one["said"] for one in votes("1", "1", "1", "2", "2", margin=0.3)} == {"no_majority"}
    assert [one["said"] for one in votes("2", "1", "1", "1", "2", margin=0.1)] == [
        "minority_answer",
        *["keep"] * 3,
        "minority_answer",
    ]


def test_prompts_vote_apart() -> None:
    """Each prompt has a majority of its own."""
    rows = [{"prompt_id": "pq"[at % 2], "completion": "12"[at % 2]} for at in range(8)]

    assert said("majority", {}, *rows) == ["keep"] * 8


@given(st.text())
def test_canonical_forms_are_stable(text: str) -> None:
    """Any text has a form or none, and a form that is text is its own."""
    canonical_maths(text)
    once = canonical_text(text)
    assert once is None or canonical_text(once) in (once, canonical_text(once))


def test_whole_texts_may_vote() -> None:
    """Without regard to case and white space."""
    assert said("majority", {"answer": "text"}, *({"completion": one} for one in ("Paris", "paris ", " PARIS", "Rome"))) == [
        *["keep"] * 3,
        "minority_answer",
    ]


# -- python ------------------------------------------------------------------------------------------------------------------

MINE = """
import os, time
from pydantic import BaseModel
from filters.base import Filter, Role, Scope
from filters.judging import one_by_one
from schemas.sample import Verdict

class Config(BaseModel):
    good: str = "good"

def build(config):
    def judge(sample):
        if sample.completion == "hang":
            time.sleep(600)
        if sample.completion == "die":
            os._exit(9)
        if sample.completion == "raise":
            raise ValueError("no")
        good = sample.completion == config.good
        return Verdict.keep(1.0, pid=os.getpid()) if good else Verdict.drop("bad", reference=sample.reference)
    columns = ("completion", "reference")
    return Filter("mine", "7", Scope.SAMPLE, Role.VERIFIER, one_by_one(judge, columns), columns)

def build_prompt(config):
    return Filter("mine", "7", Scope.PROMPT, Role.VERIFIER, lambda table: [], ("prompt_id",))
"""


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A filter of somebody's on the path, that hangs, dies and raises."""
    (tmp_path / "somebodys.py").write_text(MINE)
    monkeypatch.syspath_prepend(str(tmp_path))


@pytest.mark.slow
def test_python_isolates_somebodys_filter(mine: None) -> None:
    """Its verdicts come back whole; a sample that hangs or kills it is undecided, and no other is touched."""
    texts = ["good", "x", "hang", "good", "raise", "die", *["good"] * 40]
    parameters = {"build": "somebodys:build", "seconds": 0.5}
    found = verdicts("python", parameters, *({"completion": text, "reference": {"a": 1}} for text in texts))

    assert [one["said"] for one in found] == ["keep", "bad", "timeout", "keep", "filter_error", "crash", *["keep"] * 40]
    assert found[0]["score"] == 1.0
    assert found[1]["detail"] == {"reference": {"a": 1}}
    assert "ValueError: no" in found[4]["detail"]["error"]


def test_python_is_keyed_by_the_filter_inside(mine: None) -> None:
    """Its version and parameters decide, and a filter over prompts is refused with the way out."""
    keys = {filters.build("python", {"build": "somebodys:build", "parameters": {"good": good}}).key for good in "ab"}

    assert len(keys) == 2
    assert filters.build("python", {"build": "somebodys:build"}).version == "1+7"
    with pytest.raises(FilterError, match=r'name it without: \{name: "somebodys:build_prompt"\}'):
        filters.build("python", {"build": "somebodys:build_prompt"})
    with pytest.raises(FilterError, match="cannot import nowhere"):
        filters.build("python", {"build": "nowhere:build"})


# -- instruction -------------------------------------------------------------------------------------------------------------

LONG = "One two three. Four five!\n\nSix seven?"


@pytest.mark.parametrize(
    ("name", "arguments", "right", "wrong"),
    [
        ("length_constraints:number_words", {"num_words": 3, "relation": "at least"}, "a b c", "a b"),
        ("length_constraints:number_words", {"num_words": 3, "relation": "less than"}, "don't well-known", "a b c"),
        ("length_constraints:number_sentences", {"num_sentences": 3, "relation": "at least"}, LONG, "One. Two"),
        ("length_constraints:number_paragraphs", {"num_paragraphs": 2}, "a\n***\nb", "a\n\nb"),
        (
            "length_constraints:nth_paragraph_first_word",
            {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "six"},
            LONG,
            "Six\n\nOne",
        ),
        ("keywords:existence", {"keywords": ["two", "six"]}, LONG, "twofold six"),
        ("keywords:forbidden_words", {"forbidden_words": ["art"]}, "a part", "Art is"),
        ("keywords:frequency", {"keyword": "a", "frequency": 2, "relation": "at least"}, "a b A", "a ab"),
        ("keywords:letter_frequency", {"letter": "e", "let_frequency": 2, "let_relation": "at least"}, "Eve", "abc"),
        ("language:response_language", {"language": "ru"}, "\u041f\u0440\u0438\u0432\u0435\u0442, \u043c\u0438\u0440", "Hello"),
        ("detectable_content:number_placeholders", {"num_placeholders": 2}, "[name] of [city]", "[name]"),
        ("detectable_content:postscript", {"postscript_marker": "P.S."}, "Bye\nP.S. more", "Bye"),
        ("detectable_format:number_bullet_lists", {"num_bullets": 2}, "* a\n- b", "* a"),
        ("detectable_format:number_list_items", {"num_items": 2, "relation": "at least"}, "1. a\n2) b", "a"),
        ("detectable_format:number_highlighted_sections", {"num_highlights": 1}, "so *this* is", "so"),
        ("detectable_format:multiple_sections", {"section_spliter": "Section", "num_sections": 2}, "Section 1\nSection 2", "x"),
        ("detectable_format:json_format", {}, '```json\n{"a": 1}\n```', "{a: 1}"),
        ("detectable_format:title", {}, "<<A title>> text", "A title"),
        ("combination:two_responses", {}, "one ****** two", "one ****** one"),
        ("startend:end_checker", {"end_phrase": "The end."}, 'so. the END."', "the end. not"),
        ("startend:start_checker", {"start_phrase": "Dear"}, " dear sir", "My dear"),
        ("startend:quotation", {}, '"said"', '"said'),
        ("change_case:capital_word_frequency", {"capital_frequency": 2, "capital_relation": "at least"}, "AB CD ef", "Ab cd"),
        ("change_case:english_capital", {}, "ALL OF IT.", "All"),
        ("change_case:english_lowercase", {}, "all of it.", "All"),
        ("punctuation:no_comma", {}, "a b", "a, b"),
    ],
)
def test_instructions(name: str, arguments: dict[str, Any], right: str, wrong: str) -> None:
    """From the recipe and from the prompt alike."""
    assert said("instruction", {"checks": {name: arguments}}, {"completion": right}, {"completion": wrong}) == [
        "keep",
        "instruction_not_followed",
    ]
    reference = {"instruction_id_list": [name], "kwargs": [{**arguments, "unused": None}]}
    rows = [{"completion": text, "reference": reference} for text in (right, wrong)]
    assert said("instruction", {}, *rows) == ["keep", "instruction_not_followed"]


def test_every_instruction_has_a_case() -> None:
    """Those of the test above are all there are."""
    cases = next(mark for mark in test_instructions.pytestmark if mark.name == "parametrize").args[1]

    assert {case[0] for case in cases} == set(CHECKS)
    assert len(CHECKS) >= 15


def test_the_share_of_instructions_followed_is_the_score() -> None:
    """And those that were not are named."""
    checks = {"punctuation:no_comma": {}, "change_case:english_lowercase": {}}
    (one,) = verdicts("instruction", {"checks": checks}, {"completion": "A b"})

    assert (one["score"], one["detail"]) == (0.5, {"failed": ["change_case:english_lowercase"]})


def test_unknown_instructions_are_refused() -> None:
    """By the recipe at build, by a prompt as a bad reference; so are bad arguments."""
    with pytest.raises(FilterError, match="no instruction is called 'punctuation:none'"):
        filters.build("instruction", {"checks": {"punctuation:none": {}}})
    with pytest.raises(FilterError, match="KeyError"):
        filters.build("instruction", {"checks": {"length_constraints:number_words": {}}})
    bad = [
        {"instruction_id_list": ["x:y"], "kwargs": [{}]},
        {"instruction_id_list": []},
        "text",
        {"instruction_id_list": ["punctuation:no_comma"], "kwargs": []},
    ]
    reasons = said("instruction", {}, *({"completion": "a", "reference": one} for one in bad), {"completion": "a"})
    assert reasons == ["bad_reference", "bad_reference", "bad_reference", "keep", "no_reference"]


@given(st.text(max_size=300))
def test_no_text_makes_a_check_fail_otherwise(text: str) -> None:
    """Every check says yes or no to any text."""
    cases: Sequence[Any] = next(mark for mark in test_instructions.pytestmark if mark.name == "parametrize").args[1]
    for name, arguments, *_ in cases:
        assert CHECKS[name](text, arguments) in (True, False)


# -- reasoning_gym -----------------------------------------------------------------------------------------------------------


def gym(name: str, completion: str, **made: Any) -> dict[str, Any]:
    item = {"name": name, "config": {}, "seed": 7, "index": 1, **made}
    return {"completion": completion, "metadata": to_json({"reasoning_gym": item})}


@pytest.mark.slow
def test_reasoning_gym_scores_the_very_item() -> None:
    """Made again from name, config, seed and index; a lenient part of the score is not enough."""
    reasoning_gym = pytest.importorskip("reasoning_gym")
    answer = reasoning_gym.create_dataset("chain_sum", seed=7, size=2)[1]["answer"]
    rows = [
        gym("chain_sum", answer),
        gym("chain_sum", f" {answer}\n"),
        gym("chain_sum", f"The answer is {answer}."),
        gym("chain_sum", str(int(answer) + 1)),
        gym("chain_sum", answer, seed=8, index=0),
        gym("chain_sum", ""),
        gym("countdown", "__import__('os')"),
        gym("acre", "x"),
        gym("chain_sun", "x"),
        gym("chain_sum", "x", config={"min_terms": -1}),
        {"completion": "x"},
    ]
    found = verdicts("reasoning_gym", {}, *rows)

    assert [one["said"] for one in found] == [
        "keep", "keep", "wrong_answer", "wrong_answer", "keep", "unparsed", *["bad_reference"] * 4, "no_reference",
    ]  # fmt: skip
    assert "runs answers as code" in found[6]["detail"]["why"]
    marked = said("reasoning_gym", {"after": "Answer:"}, gym("chain_sum", f"so Answer: {answer}"), gym("chain_sum", answer))
    assert marked == ["keep", "unparsed"]


# -- decontaminate -----------------------------------------------------------------------------------------------------------

ITEM = "Natalia sold clips to 48 of her friends in April, and then she sold half as many clips in May. How many in all?"
SHORT = "What is the capital of the moon?"


@pytest.fixture
def benchmark(tmp_path: Path) -> dict[str, Any]:
    """A benchmark of two items, one long and one short, and one that is too short to count."""
    path = tmp_path / "bench.jsonl"
    path.write_text("".join(json.dumps({"question": text, "id": 3}) + "\n" for text in (ITEM, SHORT, "yes")))
    return {"benchmarks": [{"name": "bench", "path": str(path), "fields": ["question"]}]}


@pytest.mark.parametrize(
    ("completion", "item", "rule"),
    [
        (f"Here it is: {ITEM} Well.", 0, "13 words"),
        (ITEM.upper().replace(",", " --"), 0, "13 words"),
        ("xx sold clips to 48 of her friends in April AND then she sold yy", 0, "13 words"),
        ("He asked: what is THE capital of the moon", 1, "all of its 7 words"),
        ("\uff37hat is the capital of the moon? " + SHORT, 1, "all of its 7 words"),
    ],
)
def test_contaminated_samples_are_dropped_with_their_span(
    benchmark: dict[str, Any], completion: str, item: int, rule: str
) -> None:
    """In whatever case and punctuation; the span lies in the text and holds the run."""
    (one,) = verdicts("decontaminate", benchmark, {"completion": completion})

    assert (one["said"], one["detail"]["item"], one["detail"]["rule"], one["detail"]["benchmark"]) == (
        "contaminated",
        item,
        rule,
        "bench",
    )
    span = completion[one["detail"]["start"] : one["detail"]["end"]]
    assert span.startswith(one["detail"]["span"][:20])
    assert set(words_of(span)) <= set(words_of(ITEM + SHORT))


@pytest.mark.parametrize(
    "completion",
    [
        "sold clips to 48 of her friends in April and then she bought others",
        "What is the capital of France?",
        "yes",
        "",
        "clips " * 50,
    ],
)
def test_clean_samples_stay(benchmark: dict[str, Any], completion: str) -> None:
    """Twelve words in a row are not thirteen; a word like yes is in every text."""
    assert said("decontaminate", benchmark, {"completion": completion}) == ["keep"]


def test_many_short_runs_are_contamination_without_a_long_one(benchmark: dict[str, Any]) -> None:
    """At a share of the item's runs of eight words; at a higher one not."""
    words = ITEM.split()
    text = " ".join([*words[:12], "uh", *words[4:16], "uh", *words[10:22]])

    assert said("decontaminate", {**benchmark, "share": 0.7}, {"completion": text}) == ["contaminated"]
    assert said("decontaminate", {**benchmark, "share": 1.0}, {"completion": text}) == ["keep"]
    assert said("decontaminate", {**benchmark, "share": 0.7}, {"completion": " ".join(words[:12])}) == ["keep"]


def test_prompts_are_searched_too(benchmark: dict[str, Any]) -> None:
    """Or only they, or only completions."""
    row = {"completion": "72", "messages": [{"role": "user", "content": ITEM}]}

    found = [verdicts("decontaminate", {**benchmark, "scan": scan}, row)[0] for scan in ("both", "prompt", "completion")]
    assert [one["said"] for one in found] == ["contaminated", "contaminated", "keep"]
    assert found[0]["detail"]["where"] == "prompt"


def test_the_key_depends_on_what_the_benchmark_holds(benchmark: dict[str, Any], tmp_path: Path) -> None:
    """Verdicts against one version of a file are not those against another; files that cannot be read are refused."""
    before = filters.build("decontaminate", benchmark).key
    with (tmp_path / "bench.jsonl").open("a") as file:
        file.write(json.dumps({"question": "And one more item that has enough words?"}) + "\n")
    assert filters.build("decontaminate", benchmark).key != before
    with pytest.raises(FilterError, match="no field 'questoin'"):
        filters.build("decontaminate", {"benchmarks": [{**benchmark["benchmarks"][0], "fields": ["questoin"]}]})
    with pytest.raises(FilterError, match="no such file"):
        filters.build("decontaminate", {"benchmarks": [{"name": "b", "path": str(tmp_path / "none.txt")}]})
    with pytest.raises(FilterError, match="no item has 50 words"):
        filters.build("decontaminate", {**benchmark, "min_words": 50})


@given(st.lists(st.sampled_from("abcdefgh"), min_size=13, max_size=40), st.integers(0, 27))
def test_any_run_of_thirteen_words_is_found(tmp_path_factory: pytest.TempPathFactory, words: list[str], at: int) -> None:
    """Wherever it stands in the item; with one word changed in every run it is not."""
    path = tmp_path_factory.mktemp("b") / "b.txt"
    path.write_text(" ".join(f"{word}{number}" for number, word in enumerate(words)) + "\n")
    at = at % (len(words) - 12)
    run = [f"{word}{number}" for number, word in enumerate(words)][at : at + 13]
    parameters = {"benchmarks": [{"name": "b", "path": str(path)}], "share": 1.0}
    broken = [word if number % 6 else "other" for number, word in enumerate(run)]

    assert said("decontaminate", parameters, {"completion": " ".join(["x", *run, "y"])}, {"completion": " ".join(broken)}) == [
        "contaminated",
        "keep",
    ]


@pytest.mark.slow
@given(st.lists(st.lists(st.sampled_from("abc"), min_size=4, max_size=9), min_size=1, max_size=4), st.data())
def test_a_plain_set_of_runs_says_the_same(
    tmp_path_factory: pytest.TempPathFactory, items: list[list[str]], data: st.DataObject
) -> None:
    """Where each run of words is enough; also where runs repeat within an item, and with many texts at once."""
    path = tmp_path_factory.mktemp("b") / "b.txt"
    path.write_text("".join(" ".join(item) + "\n" for item in items))
    texts = data.draw(st.lists(st.lists(st.sampled_from("abcd"), max_size=12), min_size=1, max_size=6))
    parameters = {"benchmarks": [{"name": "b", "path": str(path)}], "long_run": 4, "short_run": 4, "min_words": 4}

    def runs(words: list[str]) -> set[str]:
        return {"".join(words[at : at + 4]) for at in range(len(words) - 3)}

    wanted = ["contaminated" if any(runs(text) & runs(item) for item in items) else "keep" for text in texts]
    assert said("decontaminate", parameters, *({"completion": " ".join(text)} for text in texts * 60)) == wanted * 60


@given(st.text(st.characters(max_codepoint=127)))
def test_words_of_plain_text_are_those_of_any_text(text: str) -> None:
    """Plain ASCII goes a faster way to the same words; one letter beyond it makes a text go the other."""
    assert [*words_of(text), "\u00e4"] == words_of(text + " \u00e4")
