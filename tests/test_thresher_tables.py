"""Every command that prints a table prints it as CSV and as JSON too, and both say the same."""

import csv
import io
import json

import pytest

from helpers.small_run import small_run
from thresher.audit.count_run import audit
from thresher.audit.show import table_of
from thresher.cli import main


@pytest.fixture
def printed(capsys):
    """Rows and JSON of a command; nothing else is printed to stdout."""

    def ask(*command):
        capsys.readouterr()
        assert main([*command, "--csv"]) == 0
        rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
        assert main([*command, "--json"]) == 0
        return rows, json.loads(capsys.readouterr().out)

    return ask


def numbers(row, *names):
    return [float(row[name]) for name in names]


def test_audit_is_funnel_and_families(tmp_path, printed):
    rows, found = printed("audit", small_run(tmp_path).root)

    tables = list(dict.fromkeys(row["table"] for row in rows))
    assert tables == ["filters", "families", "funnels", "reasons", "diversity", "pass_at_k", "rates", "agreement", "answers",
        "likelihoods", "lengths"]  # fmt: skip
    for name in tables[5:]:
        assert [row["table"] for row in rows].count(name) == len(found["statistics"][name])
    rows = [row for row in rows if row["table"] in tables[:4]]
    for row, one in zip(rows, found["filters"], strict=False):
        assert (row["name"], row["role"], int(row["seen"]), int(row["kept"])) == tuple(
            one[n] for n in ("name", "role", "seen", "kept")
        )
        assert (json.loads(row["reasons"]), json.loads(row["errors"])) == (one["dropped"], one["undecided"])
        assert int(row["seen"]) == int(row["kept"]) + int(row["dropped"]) + int(row["undecided"])
        assert row["pass_rate"] == row["prompts"] == ""
    for row, one in zip(rows[3:6], [*found["families"], found["total"]], strict=True):
        assert row["name"] == one["family"]
        assert numbers(row, "pass_rate", "low", "high") == [one["pass_rate"], *one["interval"]]
        assert int(row["hits"]) == one["hits"]
        assert row["seconds"] == ""
    funnels = [(family["family"], one) for family in found["families"] for one in family["filters"]]
    for row, (family, one) in zip(rows[6:12], funnels, strict=True):
        assert (row["name"], row["family"], int(row["seen"])) == (one["name"], family, one["seen"])
        assert json.loads(row["reasons"]) == one["dropped"]
    for row, one in zip(rows[12:], found["reasons"], strict=True):
        assert (row["name"], row["outcome"], row["reason"]) == (one["filter"], one["outcome"], one["reason"])
        assert (int(row["samples"]), float(row["share"])) == (one["samples"], one["share"])


def test_audit_of_several_runs(tmp_path, printed):
    first, second = small_run(tmp_path / "a"), small_run(tmp_path / "b", [("sums", ["right", "wrong"], None)] * 9)

    rows, found = printed("audit", second.root, "--against", first.root)
    rows = [row for row in rows if row["table"] == "drift"]
    assert [(row["of"], row["before"], row["after"]) for row in rows] == [
        (one["of"], *("" if rate is None else str(rate) for rate in (one["before"], one["after"]))) for one in found["drift"]
    ]
    assert found["against"].startswith("Nothing could be compared")
    rows, found = printed("audit", "--all", str(tmp_path))
    assert [(row["run"], float(row["pass_rate"])) for row in rows] == [(one["run"], one["pass_rate"]) for one in found]
    assert float(rows[0]["pass_rate"]) == audit(first).total.pass_rate


def test_check_and_estimate(recipe, printed):
    rows, found = printed("check", str(recipe()))

    assert rows[0] == {"table": "families", "name": "capital", "prompts": "4"} | dict.fromkeys(list(rows[0])[3:], "")
    assert found["families"] == {"capital": 4}
    (trial,) = found["trials"]
    assert (rows[1]["name"], rows[1]["table"]) == (trial["label"], "trials")
    assert (
        numbers(rows[1], "prompts", "gold_kept", "wrong_dropped")
        == [4, 4, 4]
        == [trial[name] for name in ("prompts", "gold_kept", "wrong_dropped")]
    )

    rows, found = printed("estimate", str(recipe()))
    by_name = {row["of"]: numbers(row, "value", "low", "high") for row in rows}
    for name, field in {"samples": "samples", "hits, at most": "hits", "pass rate": "pass_rate"}.items():
        assert by_name[name] == [found[field][bound] for bound in ("value", "low", "high")]
    assert len(rows) == 6


def test_check_that_fails_says_so_beside_the_table(recipe, tmp_path, capsys):
    path = recipe(filters=[{"name": "json_shape", "parameters": {"schema": {"type": "object"}}}])

    assert main(["check", str(path), "--json"]) == 1

    said = capsys.readouterr()
    assert len(json.loads(said.out)["faults"]) == said.err.count("thresher: ") > 0


def test_dedupe_in_both(tmp_path, capsys):
    texts = ["one two three four five", "one two three four five", "something else"]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    said = {}
    for how in ("--csv", "--json"):
        assert main(["dedupe", str(tmp_path / "rows.jsonl"), "--out", str(tmp_path / f"out{how}"), how]) == 0
        said[how] = capsys.readouterr().out
    (row,), found = list(csv.DictReader(io.StringIO(said["--csv"]))), json.loads(said["--json"])
    assert numbers(row, "rows", "kept", "exact", "near") == [3, 2, 1, 0] == [found[n] for n in ("rows", "kept", "exact", "near")]
    assert json.loads(row["largest"]) == found["largest"]


@pytest.mark.slow
def test_releases_and_index(recipe, tmp_path, printed, capsys):
    run, repo = str(tmp_path / "run"), str(tmp_path / "repo")
    assert main(["run", str(recipe()), "--out", run, "--no-prefect"]) == 0
    assert main(["publish", run, "--repo", repo]) == 0

    rows, found = printed("releases", repo)
    (release,) = found["releases"]
    assert [(row["version"], row["name"], row["forced"]) for row in rows] == [(release["version"], "small", "False")]
    assert {name.removeprefix("rows_"): int(n) for name, n in rows[0].items() if name.startswith("rows_")} == release["rows"]

    capsys.readouterr()
    assert main(["index", f"{run}/dataset", "--out", str(tmp_path / "one"), "--csv"]) == 0
    assert capsys.readouterr().out == f"index,data,rows\n{tmp_path}/one,{run}/dataset,{release['rows']['sft']}\n"
    assert main(["index", f"{run}/dataset", "--out", str(tmp_path / "two"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["rows"] == release["rows"]["sft"]


def test_sql_and_both_at_once(tmp_path, printed, capsys):
    rows, found = printed("sql", small_run(tmp_path).root, "select 1 as a, 'x,\"y\"' as b")
    assert (rows, found) == ([{"a": "1", "b": 'x,"y"'}], [{"a": 1, "b": 'x,"y"'}])
    with pytest.raises(SystemExit):
        main(["sql", str(tmp_path), "select 1", "--csv", "--json"])
    assert "not allowed with argument" in capsys.readouterr().err


def test_rows_of_several_parts():
    found = table_of(a=[{"x": 1}, {"x": 2.5, "y": {"k": 1}}], b=[{"z": [1]}])

    assert found.to_pylist() == [
        {"table": "a", "x": 1.0, "y": None, "z": None},
        {"table": "a", "x": 2.5, "y": '{"k": 1}', "z": None},
        {"table": "b", "x": None, "y": None, "z": "[1]"},
    ]
    assert table_of(a=[]).to_pylist() == []
