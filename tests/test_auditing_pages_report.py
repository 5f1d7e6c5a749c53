"""The report in a real browser: charts are drawn, examples can be filtered, and model output is never markup."""

import json
import shutil
from pathlib import Path
from typing import Literal

import pytest

from helpers import known
from helpers.small_run import FILTERS, small_run
from thresher.auditing.pages.report import report, write_report
from thresher.auditing.pages.runs_table import across, page
from thresher.cli import main
from thresher.errors import AuditError
from thresher.pool.run import Run, open_run

BAD = '</script><script>window.hacked = 1</script><img src=x onerror="window.hacked = 2">&lt;b&gt; \u2028 <!--'
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture
def hostile(tmp_path: Path) -> Run:
    """A run whose prompts, completions, reasons and details contain markup."""
    run = small_run(tmp_path / "run", corpus=True, filters=[{**item, "label": item["label"]} for item in FILTERS])
    for shard in range(3):
        entry, table = known(run.store.entry(f"samples/0000{shard}")), run.store.read_table(f"samples/0000{shard}")
        texts = [f"{text} {BAD}" for text in table["completion"].to_pylist()]
        for name in ("completion", "answer", "reasoning", "tool_calls"):
            table = table.set_column(table.column_names.index(name), table.schema.field(name), [texts])
        run.store.write_table(f"samples/0000{shard}", table, key=entry.key, facts=entry.facts)
    return run


@pytest.mark.slow
def test_texts_are_never_markup(hostile: Run) -> None:
    text = report(hostile)

    assert "window.hacked = 1</script>" not in text
    assert "<img src=x" not in text
    assert "\\u003cimg src=x" in text
    assert len(text) < 5_000_000
    for address in ("src=", "href=", "@import"):
        assert address not in text.split("<style>")[0]


@pytest.mark.slow
def test_reports_of_runs_that_lack_something(tmp_path: Path) -> None:
    cut = report(small_run(tmp_path / "cut", stop_after=1))
    assert "1 of 3 shards are sampled and judged" in cut
    assert "There are no samples yet." in report(small_run(tmp_path / "empty", stop_after=0))
    assert "Nothing was kept" in report(small_run(tmp_path / "none", [("sums", ["wrong"], None)]))
    one = report(small_run(tmp_path / "one", [("sums", ["right", "open"], None)], origin="brought"))
    assert "There is only one prompt" in one
    assert "no greedy answers" in one
    assert "no log-probabilities" in one
    assert "No sample was judged" in report(small_run(tmp_path / "open", [("sums", ["open"], None)]))


@pytest.mark.slow
def test_where_it_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = small_run(tmp_path / "run")
    assert write_report(run) == f"{run.root}/report.html"
    with pytest.raises(AuditError, match="name another file with --html"):
        write_report(run, tmp_path / "nowhere" / "report.html")
    main(["audit", run.root, "--html", str(tmp_path / "mine.html")])
    assert f"report: {tmp_path / 'mine.html'}" in capsys.readouterr().out
    assert "<h1>small</h1>" in (tmp_path / "mine.html").read_text()


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine (Debian: apt install chromium)")
@pytest.mark.parametrize(("width", "scheme"), [(1100, "light"), (390, "dark")])
def test_in_a_browser(hostile: Run, tmp_path: Path, width: int, scheme: Literal["light", "dark"]) -> None:
    from playwright.sync_api import sync_playwright

    write_report(hostile, tmp_path / "report.html", before=hostile)
    small_run(tmp_path / "runs" / "a")
    small_run(tmp_path / "runs" / "b")
    (tmp_path / "runs.html").write_text(page(across(tmp_path / "runs")))
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme, offline=True)
        tab = context.new_page()
        said: list[str] = []
        tab.on("console", lambda message: said.append(message.text))
        tab.on("pageerror", lambda error: said.append(str(error)))
        tab.on("request", lambda request: said.append(request.url) if not request.url.startswith("file://") else None)
        tab.goto((tmp_path / "report.html").as_uri())
        tab.wait_for_selector("#funnel svg")
        tab.wait_for_selector("#pass_at_k svg")

        assert tab.locator(".chart svg").count() == tab.locator(".chart").count() == 7
        assert not [text for text in tab.locator(".chart svg").all_text_contents() if "NaN" in text or "undefined" in text]
        assert tab.locator("#funnel + .wide tr").nth(2).locator("td").last.inner_text() == "25.0 %"
        rows = tab.locator("#filters tr:not([hidden]) td:first-child + td")
        assert rows.all_text_contents() == ["20", "18", "6", "5"]
        tab.select_option("#funnel_of", "words")
        assert rows.all_text_contents() == ["8", "7", "1", "1"]
        tab.wait_for_selector("#funnel [aria-label*='samples: 7; filter: finished; outcome: kept']")
        tab.select_option("#funnel_of", "all")
        assert tab.locator(".drift").inner_text().startswith("Nothing could be compared: both runs must have 8")
        assert tab.evaluate("window.hacked") is None
        assert tab.evaluate("document.documentElement.scrollWidth") <= width
        assert tab.evaluate("getComputedStyle(document.body).backgroundColor") == (
            "rgb(255, 255, 255)" if scheme == "light" else "rgb(20, 24, 31)"
        )
        every = tab.locator("#count").text_content()
        assert every == "20 of 20 examples"
        assert BAD in tab.locator("article").first.inner_text().replace("\n", " ") or BAD[:40] in tab.content()
        tab.select_option("select[name=kind]", "duplicate")
        assert tab.locator("article").count() == 2
        assert tab.locator("article .tag.duplicate").count() == 2
        tab.select_option("select[name=kind]", "")
        tab.select_option("select[name=reason]", "wrong_answer")
        tab.fill("input[name=search]", "to 1")
        assert tab.locator("#count").text_content() == "4 of 20 examples"
        tab.fill("input[name=search]", "")
        assert set(tab.locator("article mark").all_text_contents()) == {"wrong"}
        for name, value in (("reason", ""), ("outcome", "undecided"), ("filter", "answer"), ("prompt", "Question 3?")):
            tab.select_option(f"select[name={name}]", value)
        assert tab.locator("#count").text_content() == "1 of 20 examples"
        tab.select_option("select[name=outcome]", "drop")
        assert tab.locator("#count").text_content() == "1 of 20 examples"
        tab.screenshot(path=str(tmp_path / "report.png"))
        tab.goto((tmp_path / "runs.html").as_uri())
        tab.wait_for_selector("#seconds svg")
        assert tab.locator(".chart svg").count() == tab.locator(".chart").count() == 4
        assert tab.locator("tr").count() == 3
        browser.close()
    assert said == []
    assert (tmp_path / "report.png").stat().st_size > 10_000


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine (Debian: apt install chromium)")
def test_reasoning_is_folded_away_in_a_browser(tmp_path: Path) -> None:
    """Its lengths have a table of their own, and a click shows the text."""
    from playwright.sync_api import sync_playwright

    thought = "\n".join(f"Step {number}: the sum of the parts is checked again." for number in range(40))
    completions = [f"<think>\n{thought}\n</think>\n\nParis", f"<think>\n{thought}", "Paris"]
    rows = [{"prompt": "Capital of France?", "completion": text, "reference": "Paris"} for text in completions]
    (tmp_path / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "recipe.yaml").write_text("name: thinks\nfilters: [{name: finished}, {name: exact_answer}]\n")
    files = [str(tmp_path / name) for name in ("recipe.yaml", "samples.jsonl", "run")]
    assert main(["filter", files[0], "--samples", files[1], "--out", files[2]]) == 0
    write_report(open_run(files[2]), tmp_path / "report.html")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        tab = browser.new_page()
        tab.goto((tmp_path / "report.html").as_uri())

        assert tab.locator("h2", has_text="Length of the reasoning").count() == 1
        cut = tab.locator("article", has_text="cut_while_thinking")
        assert cut.locator("mark").inner_text() == "⟂ cut off while thinking"
        assert not cut.get_by_text("Step 39").is_visible()
        folded = cut.bounding_box()
        cut.locator("summary").click()
        assert cut.get_by_text("Step 39").is_visible()
        unfolded = cut.bounding_box()
        browser.close()
    assert folded is not None
    assert unfolded is not None
    assert folded["height"] < 200 < unfolded["height"]
