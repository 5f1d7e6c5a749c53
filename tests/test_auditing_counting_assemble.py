"""Counts become rates, intervals, rankings and remarks."""

from collections import Counter
from pathlib import Path

from helpers.small_run import FILTERS, small_run
from thresher.auditing.count_run import count


def test_families_count_duplicates_as_right_and_anchors_separately(tmp_path: Path) -> None:
    found = count(small_run(tmp_path)).to_dict()
    names = ("family", "prompts", "samples", "passed", "undecided", "hits", "anchors", "anchors_passed", "truncated")

    assert [tuple(family[name] for name in names) for family in found["families"]] == [
        ("sums", 3, 12, 5, 1, 4, 3, 1, 1),
        ("words", 2, 8, 1, 5, 1, 2, 0, 1),
    ]
    assert [family["pass_rate"] for family in found["families"]] == [5 / 11, 1 / 3]
    assert found["total"]["pass_rate"] == 6 / 14
    low, high = found["total"]["interval"]
    assert 0 <= low <= 6 / 14 <= high <= 1


def test_funnels_of_families_add_up_and_reasons_are_ranked(tmp_path: Path) -> None:
    filters = [FILTERS[0], FILTERS[1] | {"families": ["words"]}, FILTERS[2]]
    for found in (count(small_run(tmp_path / "all", corpus=True)), count(small_run(tmp_path / "some", filters=filters))):
        for one in found.filters:
            mine = [each for family in found.families for each in family.filters if each.name == one.name]
            assert sum(each.seen for each in mine) == one.seen
            assert sum((Counter(each.dropped) for each in mine), Counter()) == Counter(one.dropped)
            assert sum((Counter(each.undecided) for each in mine), Counter()) == Counter(one.undecided)
            assert all(each.seen == each.kept + sum(each.dropped.values()) + sum(each.undecided.values()) for each in mine)
        assert [item.name for item in found.total.filters] == [one.name for one in found.filters]
        assert [entry.samples for entry in found.reasons] == sorted((one.samples for one in found.reasons), reverse=True)
        assert sum(one.samples for one in found.reasons) == found.outcomes["drop"] + found.outcomes["undecided"]
    assert [filter_counts.name for filter_counts in found.families[0].filters] == ["finished", "exact_duplicate"]
    assert (found.reasons[0].filter, found.reasons[0].share) == ("answer", found.reasons[0].samples / 20)


def test_nothing_decided_has_no_rate(tmp_path: Path) -> None:
    found = count(small_run(tmp_path, [("sums", ["open", "open"], None)])).to_dict()

    assert found["total"]["pass_rate"] is None
    assert found["total"]["interval"] is None
    assert found["tokens"]["per_hit"] is None
    assert found["problems"] == []


def test_missing_figures_are_named(tmp_path: Path) -> None:
    audit = count(small_run(tmp_path, [("sums", ["wrong", "open"], None)]))

    assert audit.missing[0].startswith("Nothing was kept")
    assert "There are no greedy answers (anchors) to compare with." in audit.missing
    assert "There is only one prompt: an interval over prompts means little." in audit.missing


def test_an_adaptive_run_takes_the_mean_of_unbiased_rates(tmp_path: Path) -> None:
    """Drawing stops at the second hit, so 2 hits of 3 draws are an unbiased rate of (2 - 1) / (3 - 1)."""
    sampling = {"samples_per_prompt": 1, "target_hits": 2, "max_samples_per_prompt": 3}
    audit = count(small_run(tmp_path, [("sums", ["right", "wrong", "right"], None)] * 4, sampling=sampling))

    assert (audit.total.samples, audit.total.passed) == (12, 8)
    assert audit.total.pass_rate == 0.5
