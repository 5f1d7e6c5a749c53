"""Reviews: which samples a person is asked to mark, and the error rates of verifiers that follow from the marks."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from helpers import known
from helpers.small_run import Plan, small_run
from thresher.auditing.pages.report import report
from thresher.auditing.pages.review_page import write_review
from thresher.auditing.review import Review, ReviewLine, Stratum, estimated, lines_of, read_review, reviewed
from thresher.cli import main
from thresher.errors import AuditError
from thresher.pool.run import Run

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
PLAN: Plan = [
    *[("sums", ["right", "right", "wrong", "wrong", "open"], "right")] * 5,
    *[("words", ["right", "wrong", "cut", "cut", "cut"], "cut")] * 5,
]


def mark_all(run: Run, mark: Callable[[ReviewLine], str]) -> None:
    lines = [line.model_copy(update={"mark": mark(line)}) for line in read_review(run.store)]
    run.store.write_bytes("review.jsonl", "".join(line.model_dump_json() + "\n" for line in lines).encode())


def review_of(run: Run) -> Review:
    return known(reviewed(run))


def test_the_review_represents_every_stratum_of_judged_samples(tmp_path: Path) -> None:
    run = small_run(tmp_path / "run", PLAN)

    write_review(run, 8)

    lines = read_review(run.store)
    assert {(line.verdict, line.stratum, line.stands_for) for line in lines} == {
        ("passed", "sums", 10),
        ("passed", "words", 5),
        ("dropped", "sums / answer / wrong_answer", 10),
        ("dropped", "words / answer / wrong_answer", 5),
    }
    assert len(lines) == len({line.sample_id for line in lines}) == 8
    assert all((line.completion.split()[0] == "right") == (line.verdict == "passed") for line in lines)


@pytest.mark.slow
def test_marks_are_kept_and_shown_in_audit_and_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = small_run(tmp_path / "run", PLAN)
    assert main(["audit", run.root, "--review", "8"]) == 0
    assert f"to mark: {run.root}/review.html" in capsys.readouterr().out
    assert reviewed(run) is None
    mark_all(run, lambda line: "right" if line.stratum != "words" and line.verdict == "passed" else "wrong")

    write_review(run, 20)
    found = review_of(run)
    main(["audit", run.root, "--json"])

    assert (found.marked, len(read_review(run.store))) == (8, found.asked)
    assert found.asked == 20
    assert (known(found.wrong_among_passed).value, known(found.right_among_dropped).value) == pytest.approx((1 / 3, 0))
    assert (known(found.false_positive_rate).value, known(found.false_negative_rate).value) == pytest.approx((5 / 20, 0))
    assert known(found.wrong_among_passed).low < 1 / 3 < known(found.wrong_among_passed).high
    assert json.loads(capsys.readouterr().out)["review"]["marked"] == 8
    assert "8 of 20 samples that a person marked" in report(run)


def test_files_that_are_no_review_are_named(tmp_path: Path) -> None:
    run = small_run(tmp_path / "run", PLAN)
    with pytest.raises(AuditError, match="wanted 2 samples or more, found 1"):
        write_review(run, 1)
    write_review(run, 4)
    run.store.write_bytes("review.jsonl", run.store.read_bytes("review.jsonl").replace(b'"mark":null', b'"mark":"maybe"', 1))
    with pytest.raises(AuditError, match=r"review\.jsonl:1: mark: Input should be 'right' or 'wrong'"):
        reviewed(run)
    with pytest.raises(AuditError, match="nothing was judged right or wrong yet"):
        write_review(small_run(tmp_path / "none", [("sums", ["open"], None)]), 4)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("passed", "dropped", "marks"),
    [
        ([(900, 0.03), (300, 0.2)], [(2000, 0.05), (150, 0.6), (400, 0.01)], 40),
        ([(400, 0.02)] * 5, [(400, 0.02)] * 15, 7),
        ([(100, 0.01)] * 10, [(1000, 0.01)] * 30, 4),
        ([(100, 0.2)] * 5, [(400, 0.1)] * 15, 3),
    ],
    ids=["few large strata", "many", "very many and small shares", "three marks each"],
)
def test_intervals_cover_the_truth(passed: list[tuple[int, float]], dropped: list[tuple[int, float]], marks: int) -> None:
    """Strata of different sizes with different error rates, each with few marks."""
    draw = np.random.default_rng(11)
    wrong, right = (sum(size * share for size, share in strata) for strata in (passed, dropped))
    sizes = [sum(size for size, _ in strata) for strata in (passed, dropped)]
    truth = {
        "wrong_among_passed": wrong / sizes[0],
        "right_among_dropped": right / sizes[1],
        "false_positive_rate": wrong / (wrong + sizes[1] - right),
        "false_negative_rate": right / (right + sizes[0] - wrong),
    }
    covered = dict.fromkeys(truth, 0)
    for number in range(200):
        strata = [
            Stratum(verdict, size, marks, int(draw.hypergeometric(round(size * share), size - round(size * share), marks)))
            for verdict, shares in (("passed", passed), ("dropped", dropped))
            for size, share in shares
        ]
        found = estimated(strata, asked=0, seed=number)
        for name, value in truth.items():
            rate = getattr(found, name)
            assert rate.low <= rate.value <= rate.high
            covered[name] += rate.low - 1e-12 <= value <= rate.high + 1e-12

    assert all(0.89 <= count / 200 <= 1 for count in covered.values()), covered


def test_a_stratum_without_marks_widens_the_interval() -> None:
    half = [Stratum("passed", 100, 100, 0), Stratum("passed", 100, 0, 0)]
    found = estimated(half, asked=200)
    wrong = known(found.wrong_among_passed)
    assert (wrong.value, wrong.low) == (0, 0)
    assert wrong.high == pytest.approx(0.5)
    assert found.right_among_dropped is found.false_positive_rate is found.false_negative_rate is None
    wrong = known(estimated([Stratum("passed", 50, 50, 5), Stratum("dropped", 50, 50, 0)], asked=100).wrong_among_passed)
    assert (wrong.low, wrong.high) == (0.1, 0.1)
    assert lines_of(found) == ["verifiers, by 100 of 200 samples that a person marked: wrong among what passed 0.0 % [0.0, 50.0]"]


def test_marks_are_of_answers_and_outlast_a_change_of_filters(tmp_path: Path) -> None:
    """The same answers, judged first by a verifier that drops half of the right ones, then by a better one."""
    strict = small_run(tmp_path / "run", [("sums", ["right", "wrong", "wrong", "right"], None)] * 10)
    write_review(strict, 80)
    mark_all(strict, lambda _: "right")
    assert known(review_of(strict).right_among_dropped).value == 1
    better = small_run(tmp_path / "run", [("sums", ["right", "right", "right", "right"], None)] * 10)

    found = review_of(better)

    assert (found.marked, known(found.wrong_among_passed).value, found.right_among_dropped) == (40, 0, None)


def test_texts_with_other_ends_of_lines_stay_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = small_run(tmp_path / "run", PLAN)
    for shard in range(len(list((tmp_path / "run" / "samples").glob("*.json")))):
        entry, table = known(run.store.entry(f"samples/{shard:05d}")), run.store.read_table(f"samples/{shard:05d}")
        texts = [f"{text} a\u2028b\u0085c" for text in table["completion"].to_pylist()]
        table = table.set_column(table.column_names.index("completion"), table.schema.field("completion"), [texts])
        run.store.write_table(f"samples/{shard:05d}", table, key=entry.key, facts=entry.facts)
    write_review(run, 8)
    mark_all(run, lambda _: "right")
    assert len(read_review(run.store)) == 8
    run.store.write_bytes("review.jsonl", run.store.read_bytes("review.jsonl") + b"\n\n")
    assert review_of(run).marked == 8
    run.store.write_bytes("review.jsonl", "{}".encode("utf-16"))
    assert main(["audit", run.root]) == 1
    assert "review.jsonl: not UTF-8" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine (Debian: apt install chromium)")
def test_marking_in_a_browser(tmp_path: Path) -> None:
    from playwright.sync_api import sync_playwright

    run = small_run(tmp_path / "run", PLAN)
    write_review(run, 8)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        tab = browser.new_page()
        said: list[str] = []
        tab.on("console", lambda message: said.append(message.text))
        tab.on("pageerror", lambda error: said.append(str(error)))
        tab.goto((tmp_path / "run/review.html").as_uri())
        tab.keyboard.press("r")
        tab.keyboard.press("w")
        tab.click("#right")
        tab.keyboard.press("ArrowLeft")
        tab.keyboard.press("u")
        assert "2 marked" in tab.locator("#where").inner_text()
        tab.reload()
        assert "2 marked" in tab.locator("#where").inner_text()
        tab.keyboard.press("Control+r")
        assert "2 marked" in tab.locator("#where").inner_text()
        with tab.expect_download() as download:
            tab.click("#save")
        download.value.save_as(tmp_path / "run/review.jsonl")
        tab.evaluate("localStorage.clear()")
        tab.reload()
        assert "0 marked" in tab.locator("#where").inner_text()
        tab.set_input_files("#load", tmp_path / "run/review.jsonl")
        tab.wait_for_function("document.getElementById('where').textContent.includes('2 marked')")
        assert "Be brief." in tab.locator("#sample").inner_text()
        browser.close()

    assert said == []
    assert [line.mark for line in read_review(run.store)[:4]] == ["right", "wrong", None, None]
    assert len({line.verdict for line in read_review(run.store)}) == 2
    assert review_of(run).marked == 2
