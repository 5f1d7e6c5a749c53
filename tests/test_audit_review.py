"""Marks of a person on a sample of what was passed and dropped: what they are asked, what follows from it."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.small_run import small_run
from thresher.audit.report import report
from thresher.audit.review import Stratum, estimated, lines_of, read_review, reviewed, write_review
from thresher.cli import main
from thresher.errors import AuditError
from thresher.pool.store import Store

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
PLAN = [("sums", ["right", "right", "wrong", "wrong", "open"], "right")] * 5
PLAN += [("words", ["right", "wrong", "cut", "cut", "cut"], "cut")] * 5


def marked(store: Store, mark: Any) -> Any:
    lines = [one.model_copy(update={"mark": mark(one)}) for one in read_review(store)]
    store.write_bytes("review.jsonl", "".join(one.model_dump_json() + "\n" for one in lines).encode())
    return lines


def test_what_is_asked_stands_for_all_that_verifiers_judged(tmp_path: Path) -> None:
    store = small_run(tmp_path / "run", PLAN)

    write_review(store, 8)

    lines = read_review(store)
    assert {(one.verdict, one.stratum, one.stands_for) for one in lines} == {
        ("passed", "sums", 10),
        ("passed", "words", 5),
        ("dropped", "sums / answer / wrong_answer", 10),
        ("dropped", "words / answer / wrong_answer", 5),
    }
    assert len(lines) == len({one.sample_id for one in lines}) == 8
    assert all((one.completion.split()[0] == "right") == (one.verdict == "passed") for one in lines)


def test_marks_stay_and_are_told_in_audit_and_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = small_run(tmp_path / "run", PLAN)
    assert main(["audit", store.root, "--review", "8"]) == 0
    assert f"to mark: {store.root}/review.html" in capsys.readouterr().out
    assert reviewed(store) is None
    marked(store, lambda one: "wrong" if one.stratum == "words" else "right" if one.verdict == "passed" else "wrong")

    write_review(store, 20)
    found = reviewed(store)
    main(["audit", store.root, "--json"])

    assert (found.marked, len(read_review(store))) == (8, found.asked)
    assert found.asked == 20
    assert (found.wrong_among_passed.value, found.right_among_dropped.value) == (pytest.approx(1 / 3), 0)
    assert (found.false_positive_rate.value, found.false_negative_rate.value) == (pytest.approx(5 / 20), 0)
    assert found.wrong_among_passed.low < 1 / 3 < found.wrong_among_passed.high
    assert json.loads(capsys.readouterr().out)["review"]["marked"] == 8
    assert "8 of 20 samples that a person marked" in report(store)


def test_files_that_are_no_review_are_named(tmp_path: Path) -> None:
    store = small_run(tmp_path / "run", PLAN)
    with pytest.raises(AuditError, match="wanted 2 samples or more, found 1"):
        write_review(store, 1)
    write_review(store, 4)
    store.write_bytes("review.jsonl", store.read_bytes("review.jsonl").replace(b'"mark":null', b'"mark":"maybe"', 1))
    with pytest.raises(AuditError, match=r"review\.jsonl:1: mark: Input should be 'right' or 'wrong'"):
        reviewed(store)
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
def test_intervals_cover_the_truth(passed: Any, dropped: Any, marks: int) -> None:
    """Strata of different sizes, of which different shares are judged wrongly; few marks of each of many strata."""
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
            for verdict, some in (("passed", passed), ("dropped", dropped))
            for size, share in some
        ]
        found = estimated(strata, asked=0, seed=number)
        for name, value in truth.items():
            one = getattr(found, name)
            assert one.low <= one.value <= one.high
            covered[name] += one.low - 1e-12 <= value <= one.high + 1e-12

    assert all(0.89 <= count / 200 <= 1 for count in covered.values()), covered


def test_no_marks_of_a_stratum_widen_the_interval_and_none_at_all_say_nothing() -> None:
    half = [Stratum("passed", 100, 100, 0), Stratum("passed", 100, 0, 0)]
    found = estimated(half, asked=200)
    assert (found.wrong_among_passed.value, found.wrong_among_passed.low) == (0, 0)
    assert found.wrong_among_passed.high == pytest.approx(0.5)
    assert found.right_among_dropped is found.false_positive_rate is found.false_negative_rate is None
    every = estimated([Stratum("passed", 50, 50, 5), Stratum("dropped", 50, 50, 0)], asked=100)
    assert (every.wrong_among_passed.low, every.wrong_among_passed.high) == (0.1, 0.1)
    assert lines_of(found) == ["verifiers, by 100 of 200 samples that a person marked: wrong among what passed 0.0 % [0.0, 50.0]"]


def test_marks_are_of_answers_and_outlast_a_change_of_filters(tmp_path: Path) -> None:
    """The same answers, once as a verifier that drops half of the right ones left them, once as a better one did."""
    strict = small_run(tmp_path / "run", [("sums", ["right", "wrong", "wrong", "right"], None)] * 10)
    write_review(strict, 80)
    marked(strict, lambda one: "right")
    before = reviewed(strict)
    assert before.right_among_dropped.value == 1
    better = small_run(tmp_path / "run", [("sums", ["right", "right", "right", "right"], None)] * 10)

    found = reviewed(better)

    assert (found.marked, found.wrong_among_passed.value, found.right_among_dropped) == (40, 0, None)


def test_texts_with_other_ends_of_lines_stay_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = small_run(tmp_path / "run", PLAN)
    for shard in range(len(list((tmp_path / "run" / "samples").glob("*.json")))):
        entry, table = store.entry(f"samples/{shard:05d}"), store.read_table(f"samples/{shard:05d}")
        texts = [f"{text} a\u2028b\u0085c" for text in table["completion"].to_pylist()]
        table = table.set_column(table.column_names.index("completion"), table.schema.field("completion"), [texts])
        store.write_table(f"samples/{shard:05d}", table, key=entry.key, facts=entry.facts)
    write_review(store, 8)
    marked(store, lambda one: "right")
    assert len(read_review(store)) == 8
    store.write_bytes("review.jsonl", store.read_bytes("review.jsonl") + b"\n\n")
    assert reviewed(store).marked == 8
    store.write_bytes("review.jsonl", "{}".encode("utf-16"))
    assert main(["audit", store.root]) == 1
    assert "review.jsonl: not UTF-8" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine (Debian: apt install chromium)")
def test_marking_in_a_browser(tmp_path: Path) -> None:
    from playwright.sync_api import sync_playwright

    store = small_run(tmp_path / "run", PLAN)
    write_review(store, 8)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        tab, said = browser.new_page(), []
        tab.on("console", lambda message: said.append(message.text))
        tab.on("pageerror", lambda error: said.append(str(error)))
        tab.goto((tmp_path / "run/review.html").as_uri())
        tab.keyboard.press("r")
        tab.keyboard.press("w")
        tab.click("#right")
        tab.keyboard.press("ArrowLeft")
        tab.keyboard.press("u")
        assert "2 marked" in tab.locator("#where").text_content()
        tab.reload()
        assert "2 marked" in tab.locator("#where").text_content()
        tab.keyboard.press("Control+r")
        assert "2 marked" in tab.locator("#where").text_content()
        with tab.expect_download() as download:
            tab.click("#save")
        download.value.save_as(tmp_path / "run/review.jsonl")
        tab.evaluate("localStorage.clear()")
        tab.reload()
        assert "0 marked" in tab.locator("#where").text_content()
        tab.set_input_files("#load", tmp_path / "run/review.jsonl")
        tab.wait_for_function("document.getElementById('where').textContent.includes('2 marked')")
        assert "Be brief." in tab.locator("#one").text_content()
        browser.close()

    assert said == []
    assert [one.mark for one in read_review(store)[:4]] == ["right", "wrong", None, None]
    assert len({one.verdict for one in read_review(store)}) == 2
    assert reviewed(store).marked == 2
