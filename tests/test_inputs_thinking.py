"""How a model marks its thinking is found in its directory, or given by the recipe."""

import json
from pathlib import Path

import pytest

from filters.reasoning import USUAL, Marking
from schemas.engines import Marks, ModelSpec
from thresher.inputs.parser_names import marking_by_name
from thresher.inputs.thinking import marking_from, marking_of, noted

TEMPLATE = "{% if enable_thinking %}<think>\n{% else %}<think>\n\n</think>\n\n{% endif %}"


def folder(path: Path, *, template: str = "", tokens: tuple[str, ...] = ()) -> str:
    (path / "chat_template.jinja").write_text(template)
    added = [{"id": number, "content": token} for number, token in enumerate(tokens)]
    (path / "tokenizer.json").write_text(json.dumps({"added_tokens": added}))
    (path / "tokenizer_config.json").write_text("{}")
    return str(path)


@pytest.mark.parametrize(
    ("template", "tokens", "marking"),
    [
        (TEMPLATE, (), Marking((("<think>", "</think>"),), channels=False)),
        ("", ("[THINK]", "[/THINK]"), Marking((("[THINK]", "[/THINK]"),), channels=False)),
        ("", ("<|channel|>", "<|message|>"), Marking((), channels=True)),
        ("", ("<ifm|think>", "</ifm|think>"), Marking((("<ifm|think>", "</ifm|think>"),), channels=False)),
        ("Write 'Here is my thought process:', then 'Here is my response:'", (), marking_by_name("granite")),
        ("{{ messages }}", ("<|im_end|>",), USUAL),
    ],
    ids=["template", "tokens", "channels", "marks of a parser", "a parser of vLLM", "nothing"],
)
def test_auto_finds_the_marks(template: str, tokens: tuple[str, ...], marking: Marking, tmp_path: Path) -> None:
    assert marking_of(ModelSpec(), folder(tmp_path, template=template, tokens=tokens)) == marking


def test_a_template_inside_the_tokenizer_config_is_read(tmp_path: Path) -> None:
    folder(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": TEMPLATE}))

    assert marking_of(ModelSpec(), str(tmp_path)) == Marking((("<think>", "</think>"),), channels=False)


def test_the_recipe_overrules_what_is_found(tmp_path: Path) -> None:
    path = folder(tmp_path, template=TEMPLATE)

    assert marking_of(ModelSpec(reasoning=None), path) is None
    assert marking_of(ModelSpec(reasoning=Marks(start="<a>", end="</a>")), path) == Marking((("<a>", "</a>"),), channels=False)


def test_a_model_on_a_server_shows_nothing() -> None:
    assert marking_of(ModelSpec(), "") == USUAL


@pytest.mark.parametrize("marking", [None, USUAL, Marking((("<a>", "</a>"),), channels=False, opened=True)])
def test_a_marking_is_noted_as_json(marking: Marking | None) -> None:
    assert marking_from(json.loads(json.dumps(noted(marking)))) == marking
