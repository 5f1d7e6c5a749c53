"""What is known of a prompt before it is changed. The measures of changed prompts are in test_study_run_study.py."""

import pyarrow as pa

from thresher.study.variant_measures import KnownAnswers, known_answers


def test_failed_samples_and_other_temperatures_are_not_known() -> None:
    rows = [
        ("p", True, 0.0, "greedy", None),
        ("p", False, 1.0, "warm", None),
        ("p", False, 0.5, "cool", None),
        ("p", False, 1.0, "lost", "timeout"),
        ("q", False, 1.0, "warm", None),
    ]
    columns = ("prompt_id", "anchor", "temperature", "completion", "error")
    shard = pa.table(dict(zip(columns, zip(*rows, strict=True), strict=True)))

    assert known_answers(shard) == {"p": KnownAnswers("greedy", {"warm"})}
