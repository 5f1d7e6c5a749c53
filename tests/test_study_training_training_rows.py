"""What a study trains on, and what it holds out. The rows themselves are compared in test_study_training_train.py."""

from schemas.sample import Message, Prompt
from thresher.study.training.training_rows import first_answers, held_out


def test_half_of_each_family_is_held_out_whatever_the_order() -> None:
    prompts = [Prompt(f"{family}{number}", family, (Message("user", "?"),)) for family in "ab" for number in range(7)]

    held = held_out(prompts)

    assert held == held_out(reversed(prompts))
    assert [sum(prompt.prompt_id in held for prompt in prompts if prompt.family == family) for family in "ab"] == [3, 3]


def test_the_first_answer_of_a_prompt_is_the_first_by_sample_id() -> None:
    rows = [{"prompt_id": prompt, "sample_id": sample} for prompt, sample in [("p", "3"), ("q", "2"), ("p", "1"), ("q", "4")]]

    first = first_answers(rows)

    assert sorted((row["prompt_id"], row["sample_id"]) for row in first) == [("p", "1"), ("q", "2")]
