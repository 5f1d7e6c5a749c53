"""The counters of a server: read from its page, and believed as far as they agree with its answers."""

from thresher.samplers.http.counters import WorkCounters, read_counters

NAMES = ("vllm:generation_tokens_total", "vllm:kv_cache_usage_perc")
PAGE = b"""# HELP vllm:generation_tokens_total Number of generation tokens processed.
# TYPE vllm:generation_tokens_total counter
vllm:generation_tokens_total{engine="0",model_name="a model {of} two"} 17.0
vllm:generation_tokens_total{engine="1",model_name="a model {of} two"} 1.5e+06 1764500000
vllm:generation_tokens_created{engine="0"} 99.0
vllm:kv_cache_usage_perc 0.25
vllm:request_generation_tokens_total{engine="0"} 5.0
"""


def looks(*looks: tuple[float, int], counters: WorkCounters | None = None) -> list[bool]:
    """Whether the counters are believed after each look, given the tokens made and received."""
    counters = counters or WorkCounters()
    believed = []
    for now, (made, received) in enumerate(looks):
        counters.look((made,), received, float(now))
        believed.append(counters.believed)
    return believed


def test_counters_are_summed_over_ranks() -> None:
    assert read_counters(PAGE, NAMES) == (1_500_017.0, 0.25)


def test_a_page_without_the_first_counter_has_none() -> None:
    assert read_counters(PAGE, ("vllm:prompt_tokens_total", *NAMES)) is None
    assert read_counters(b'{"detail": "Not Found"}', NAMES) is None


def test_they_move_when_any_of_them_changes() -> None:
    counters = WorkCounters()
    moved = []
    for now, values in enumerate([(5.0, 0.1), (5.0, 0.1), (5.0, 0.2), (6.0, 0.2), (6.0, 0.2)]):
        counters.look(values, 0, float(now))
        moved.append(counters.moved_at)

    assert moved == [0.0, 0.0, 2.0, 3.0, 3.0]


def test_counters_that_miss_tokens_of_the_answers_are_not_believed() -> None:
    assert looks((100, 0), (150, 50), (150, 51), (151, 51)) == [True, True, False, True]


def test_counters_start_again_with_the_server() -> None:
    assert looks((100, 0), (300, 150), (2, 150), (50, 190), (50, 250)) == [True, True, True, True, False]


def test_counters_that_vanish_are_not_believed() -> None:
    counters = WorkCounters()
    counters.look((1.0,), 0, 0.0)
    counters.look(None, 0, 1.0)

    assert not counters.believed
