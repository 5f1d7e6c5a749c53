"""What leaves the machine: cards, datasets, releases and reports name no servers, request fields, users or directories, and no
name in them breaks out of its place."""

import html.parser
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from markdown_it import MarkdownIt

from helpers.runs import dataset_of
from helpers.small_run import FILTERS, small_run
from schemas.dataset import PublishSpec
from thresher.auditing.pages.report import report
from thresher.cli.output import print_table
from thresher.pool.run import Run, open_run
from thresher.releases.merge_card import BEGIN, END
from thresher.releases.publish import publish
from thresher.terminal import open_console, visible

HOSTILE = [
    "a | b | c",
    "`x` ``y``",
    "line\nend\r\n---\nlicense: evil",
    "---",
    "<script>alert(1)</script><img src=x onerror=y>",
    "![x](https://evil.example/pixel.png)",
    "[x](javascript:alert(1))",
    f"{END} {BEGIN} <!-- thresher: contents -->",
    "</td></tr></table><h1>x",
    "{{ 7 * 7 }} {% raw %}",
    "\x1b[31mred\x9b31m\u202eleft\u2028line",
    "# heading\n\n* item",
    "\"quoted\" \\ 'x': &a *b !c %d @e",
    "=1+1",
    "| a |\n|---|\n| b |",
]
SECRETS = ["10.1.2.3", "gpu-node-7", "private-field", "/home/somebody", "somebody", "internal.example", "s3://", "MY_OWN_KEY"]


def told_run(root: Path, *, details: bool = False) -> Run:
    """A run that was drawn from servers, with further request fields, by models and files in directories of a user."""
    run = small_run(root, dataset={"engine_details": details, "views": ["sft", "rollouts"]})
    engine: dict[str, Any] = {"kind": "openai_http", "base_urls": ["http://10.1.2.3:8000/v1", "http://gpu-node-7:8000/v1"]}
    engine |= {"extra_body": {"private-field": 1}, "api_key_env": "MY_OWN_KEY"}
    recipe = run.recipe.model_dump(mode="json") | {"engine": engine, "executor": {"kind": "ray", "address": "ray://gpu-node-7:1"}}
    recipe["prompts"][0]["source"]["path"] = "/home/somebody/prompts.jsonl"
    recipe["run"]["scratch"] = "/home/somebody/scratch"
    recipe["publish"]["repo"] = "s3://internal.example/x"
    recipe["prompts"][0]["template"] = "/no_think {{ question }}"
    recipe["filters"].append({"name": "judge", "parameters": {"engine": engine, "model": {"name": "/home/somebody/judge"}}})
    settings = {"extra_body": {"private-field": 1}, "options": {"download_dir": "/home/somebody/cache"}}
    model = run.manifest.model | {"name": "/home/somebody/tiny", "settings": settings}
    manifest = run.manifest.model_validate(run.manifest.model_dump(mode="json") | {"recipe": recipe, "model": model})
    run.store.write_model("run.json", manifest)
    for shard in range(3):
        name = f"samples/{shard:05d}"
        entry, table = run.store.entry(name), run.store.read_table(name)
        assert entry is not None
        error = "http://10.1.2.3:8000/v1: gpu-node-7.internal.example:8000 fails; see /home/somebody/log"
        sampling = json.dumps({"temperature": 1, "engine": settings})
        texts = {"source": "gpu-node-7:8000", "sampling": sampling, "model": "/home/somebody/tiny", "error": error}
        for column, text in texts.items():
            place = table.schema.get_field_index(column)
            values = [text if column != "error" or row == 0 else None for row in range(table.num_rows)]
            table = table.set_column(place, table.schema.field(place), pa.array(values, pa.string()))
        run.store.write_table(name, table, key=entry.key, facts=entry.facts)
    return open_run(root)


def everything(folder: Path) -> str:
    """The texts of all files in a folder, with the rows and the metadata of Parquet files."""
    texts = []
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        if file.suffix == ".parquet":
            table = pq.read_table(file)
            texts.append(f"{json.dumps(table.to_pylist(), default=str)} {table.schema.metadata}")
        elif file.suffix in (".md", ".json", ".txt"):
            texts.append(file.read_text())
    return "\n".join(texts)


@pytest.mark.slow
def test_nothing_tells_where_a_run_was_made_unless_it_is_asked_for(tmp_path: Path) -> None:
    run = told_run(tmp_path / "somebody" / "run")
    dataset_of(run)
    repo = tmp_path / "somebody" / "repo"
    publish(open_run(run.root), PublishSpec(repo=str(repo), gates={"calibration": False}), force="to see it")
    page = report(open_run(run.root))
    released, made = everything(repo), everything(Path(run.root, "dataset"))

    for text in (made, released, page):
        assert [text[max(0, text.index(secret) - 80) :][:160] for secret in SECRETS if secret in text] == []
    assert "/no_think {{ question }}" in made
    assert "prompts.jsonl" in made


def test_what_is_asked_for_is_told(tmp_path: Path) -> None:
    run = told_run(tmp_path, details=True)
    made = everything(dataset_of(run))

    assert [secret for secret in SECRETS if secret not in made] == ["s3://"]


class Tags(html.parser.HTMLParser):
    """The tags of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append(tag)


def named_run(root: Path, name: str) -> Run:
    """A run whose model, revision, reasons, filters, tags, title and licences have a name."""
    rules = [{**FILTERS[0], "says": {"cut": ("drop", name)}}, *FILTERS[1:]]
    settings = {"pretty_name": name, "tags": [name], "license": name, "language": [name], "description": f"A set. {HOSTILE[7]}"}
    run = small_run(root, filters=rules, dataset={"views": ["sft", "rollouts"], **settings})
    recipe = run.recipe.model_dump(mode="json")
    recipe["prompts"][0]["license"] = name
    recipe["run"]["salt"] = name
    model = run.manifest.model | {"name": name, "revision": name, "licence": name, "settings": {"options": {"x": name}}}
    manifest = run.manifest.model_validate(run.manifest.model_dump(mode="json") | {"recipe": recipe, "model": model})
    run.store.write_model("run.json", manifest)
    return open_run(root)


def shape(text: str) -> tuple[list[str], list[str], list[int], list[str]]:
    """Of a card: the keys of its front matter, the kinds of its blocks and spans, the columns of its tables' rows, its marks."""
    source = text[4 : text.index("\n---\n")]
    body = text[text.index("\n---\n") + 5 :]
    tokens = MarkdownIt("commonmark").enable("table").parse(body)
    kinds = [token.type for token in tokens if token.type not in ("inline", "text")]
    spans = [c.type for t in tokens for c in t.children or () if c.type in ("image", "link_open", "html_inline", "code_inline")]
    columns, rows = 0, []
    for token in tokens:
        columns = 0 if token.type == "tr_open" else columns + (token.type in ("td_open", "th_open"))
        if token.type == "tr_close":
            rows.append(columns)
    return list(yaml.safe_load(source)), kinds + spans, rows, [line for line in body.splitlines() if line.startswith("<!--")]


@pytest.mark.slow
def test_no_name_breaks_out_of_a_card_or_a_page(tmp_path: Path) -> None:
    def made(number: int, name: str) -> tuple[Any, Any, Any]:
        run = named_run(tmp_path / str(number) / "run", name)
        card = (dataset_of(run) / "README.md").read_text()
        repo = tmp_path / f"repo-{number}"
        publish(open_run(run.root), PublishSpec(repo=str(repo), gates={"calibration": False}), force=name)
        release = (repo / "README.md").read_text()
        return shape(card), shape(release), Tags(report(open_run(run.root))).tags

    plain = made(0, "plain")
    for number in range(1, 4):
        name = "\n".join(HOSTILE[number::3])
        card, release, tags = made(number, name)
        assert card[0] == plain[0][0], name
        assert card[2] == plain[0][2], name
        assert tags == plain[2], name
        assert release[0] == plain[1][0], name
        assert release[2] == plain[1][2], name
        assert [line[:20] for line in release[3]] == [line[:20] for line in plain[1][3]], name
        assert not {"image", "link_open", "html_inline"} & {*card[1], *release[1]} - {*plain[0][1]}, name


@pytest.mark.parametrize("name", HOSTILE)
def test_no_name_acts_on_a_terminal(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    console = open_console()
    console.print(name, markup=False)
    print_table(pa.table({name: [name], "x": ["y"]}))

    assert "".join(capsys.readouterr().out.split()).isprintable()
    assert visible("größer 1\u202f000\tx\n") == "größer 1\u202f000\tx\n"
