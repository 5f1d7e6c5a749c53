"""Marks of a person on a sample of what was passed and dropped: what they are asked, what follows from it."""

import json
import runpy
import shutil
from pathlib import Path

import numpy as np
import pytest

from thresher.audit.report import report
from thresher.audit.review import Reviewed, estimated, read_review, reviewed, write_review
from thresher.cli import main
from thresher.errors import AuditError

SMALL = runpy.run_path(str(Path(__file__).with_name("small_run.py")))
small_run = SMALL["small_run"]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
PLAN = [("sums", ["right", "right", "wrong", "wrong", "open"], "right")] * 5
PLAN += [("words", ["right", "wrong", "cut", "cut", "cut"], "cut")] * 5


def marked(store, mark):
    lines = [one.model_copy(update={"mark": mark(one)}) for one in read_review(store)]
    store.write_bytes("review.jsonl", "".join(one.model_dump_json() + "\n" for one in lines).encode())
    return lines


def test_what_is_asked_stands_for_all_that_verifiers_judged(tmp_path):
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


def test_marks_stay_and_are_told_in_audit_and_report(tmp_path, capsys):
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


def test_files_that_are_no_review_are_named(tmp_path):
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
def test_intervals_cover_the_truth():
    """Strata of different sizes, of which different shares are judged wrongly."""
    draw = np.random.default_rng(11)
    strata = [("passed", 900, 0.03), ("passed", 300, 0.2), ("dropped", 2000, 0.05), ("dropped", 150, 0.6), ("dropped", 400, 0.01)]
    wrong = sum(w * p for verdict, w, p in strata if verdict == "passed")
    right = sum(w * p for verdict, w, p in strata if verdict == "dropped")
    truth = {
        "wrong_among_passed": wrong / 1200,
        "right_among_dropped": right / 2550,
        "false_positive_rate": wrong / (wrong + 2550 - right),
        "false_negative_rate": right / (right + 1200 - wrong),
    }
    covered = dict.fromkeys(truth, 0)
    for number in range(200):
        lines = []
        for at, (verdict, weight, share) in enumerate(strata):
            for place, against in enumerate(draw.random(40) < share):
                mark = "wrong" if against == (verdict == "passed") else "right"
                told = {"prompt": "", "completion": "", "reference": None, "detail": None, "mark": mark}
                lines.append(Reviewed(sample_id=f"{at}-{place}", verdict=verdict, stratum=str(at), stands_for=weight, **told))
        found = estimated(lines, number)
        for name, value in truth.items():
            covered[name] += getattr(found, name).low <= value <= getattr(found, name).high

    assert all(0.89 <= count / 200 <= 1 for count in covered.values()), covered


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine (Debian: apt install chromium)")
def test_marking_in_a_browser(tmp_path):
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
        with tab.expect_download() as download:
            tab.click("#save")
        download.value.save_as(tmp_path / "run/review.jsonl")
        browser.close()

    assert said == []
    assert [one.mark for one in read_review(store)[:4]] == ["right", "wrong", None, None]
    assert len({one.verdict for one in read_review(store)}) == 2
    assert reviewed(store).marked == 2
