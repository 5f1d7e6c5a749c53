"""Prompts are shown as the model reads them, by a real tokenizer's template or by a server."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from filters.reasoning import USUAL, Marking
from helpers.fake_openai import FakeOpenAI
from helpers.http_sampler import free_port
from helpers.small_model import CHAT, write_model
from thresher.inputs import recipe_file
from thresher.inputs.prompts import plan
from thresher.judging.rendering import ASKED, Rendering, cut, render, turn_lines, where_thinking_begins

Write = Callable[..., Path]

REFUSES_SYSTEM = "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}" + CHAT
ALTERNATES = (
    "{% for message in messages %}{% if (message.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/...') }}{% endif %}{{ message.content }} {% endfor %}"
)
SOURCE = {"kind": "jsonl", "path": "prompts.jsonl"}


def family(**changes: Any) -> list[dict[str, Any]]:
    return [{"family": "capital", "source": SOURCE, "template": "Capital of {{ country }}?", **changes}]


def rendering(path: Path, *overrides: str) -> Rendering:
    loaded = recipe_file.load(str(path), list(overrides))
    return render(loaded.recipe, loaded.base, plan(loaded.recipe, loaded.base))


def on_vllm(recipe: Write, **changes: Any) -> Path:
    return recipe(model={"name": "./model"}, engine={"kind": "vllm"}, **changes)


def on_server(recipe: Write, server: FakeOpenAI | str, **changes: Any) -> Path:
    url = server if isinstance(server, str) else server.url
    return recipe(model={"name": "small"}, engine={"kind": "openai_http", "base_urls": [url]}, **changes)


# -- by the model's own template ---------------------------------------------------------------------------------------


def test_the_first_prompt_is_rendered_by_the_models_template(recipe: Write, tmp_path: Path) -> None:
    """And the tokens of all prompts are counted: 'Papua New Guinea' is two words longer than 'France'."""
    write_model(tmp_path / "model")
    path = on_vllm(recipe, prompts=family(system="Be brief."))
    with (tmp_path / "prompts.jsonl").open("a") as file:
        file.write('{"country": "Papua New Guinea", "answer": "Port Moresby"}\n')

    (entry,), faults, notes = rendering(path)

    assert entry.text == "<system>Be brief.</system>\n<user>Capital of France?</user>\n<assistant>"
    assert (entry.prompts, entry.tokens, entry.counted, entry.fewest, entry.most, entry.context) == (5, 6, 5, 6, 8, 64)
    assert entry.thinking == "the model has no thinking marks"
    assert (entry.too_long, faults, notes) == (0, (), ())
    assert entry.lines() == [
        "capital: 5 prompts, 6 to 8 tokens",
        "  system: Be brief.",
        "  user: Capital of France?",
        "  as the model reads it, 6 tokens; the model has no thinking marks:",
        "  | <system>Be brief.</system>",
        "  | <user>Capital of France?</user>",
        "  | <assistant>",
    ]


def test_a_template_that_opens_the_thinking_says_so(recipe: Write, tmp_path: Path) -> None:
    write_model(tmp_path / "model", CHAT.replace("<assistant>{% endif", "<assistant><think>\n{% endif"))

    ((entry,), faults, _) = rendering(on_vllm(recipe))

    assert entry.thinking == "thinking begins in the prompt, by <think>"
    assert not faults


def test_a_template_that_refuses_a_role_is_quoted(recipe: Write, tmp_path: Path) -> None:
    write_model(tmp_path / "model", REFUSES_SYSTEM)
    path = on_vllm(recipe, prompts=family(system="Be brief."))

    (entry,), faults, _ = rendering(path)

    (fault,) = faults
    assert fault == (
        "prompts: family capital: the model's chat template refuses the role system: System role not supported (4 of 4 prompts); "
        "leave out `system`, or write it into `template`"
    )
    assert entry.text is None
    assert not rendering(on_vllm(recipe))[1]


def test_only_the_prompts_that_a_template_refuses_count(recipe: Write, tmp_path: Path) -> None:
    """A system message that is empty for some rows is left out there."""
    write_model(tmp_path / "model", REFUSES_SYSTEM)
    path = on_vllm(recipe, prompts=family(system="{{ 'Be brief.' if country == 'Japan' else '' }}"))

    (entry,), (fault,), _ = rendering(path)

    assert "refuses the role system" in fault
    assert "(1 of 4 prompts)" in fault
    assert (entry.tokens, entry.counted) == (4, 3)


def test_roles_that_must_alternate_name_the_role_at_fault(recipe: Write, tmp_path: Path) -> None:
    write_model(tmp_path / "model", ALTERNATES)

    _, (fault,), _ = rendering(on_vllm(recipe, prompts=family(system="Be brief.")))
    assert "refuses the role system: Conversation roles must alternate" in fault


def test_a_template_that_fails_on_every_message_names_the_roles(recipe: Write, tmp_path: Path) -> None:
    write_model(tmp_path / "model", "{{ raise_exception('no tools, no answer') }}")

    _, (fault,), _ = rendering(on_vllm(recipe))
    assert "the model's chat template fails on a prompt with the roles user: no tools, no answer (4 of 4 prompts)" in fault


def test_prompts_that_leave_no_room_are_counted(recipe: Write, tmp_path: Path) -> None:
    """max_tokens is 16. Four tokens and 16 fit a context of 20, six do not."""
    write_model(tmp_path / "model", context=20)
    path = on_vllm(recipe)
    with (tmp_path / "prompts.jsonl").open("a") as file:
        file.write('{"country": "Papua New Guinea", "answer": "Port Moresby"}\n')

    (entry,), (fault,), _ = rendering(path)

    assert (entry.too_long, entry.most) == (1, 6)
    assert fault.startswith(
        "prompts: family capital: 1 of the 5 prompts counted leave no room for sampling.max_tokens 16 in the context of 20; the "
        "longest has 6 tokens"
    )
    assert rendering(path, "engine.max_model_len=19")[0][0].too_long == 5


def test_a_base_model_reads_plain_text(recipe: Write, tmp_path: Path) -> None:
    write_model(tmp_path / "model", template=None)

    assert rendering(on_vllm(recipe))[0][0].text == "Capital of France?"
    (fault,) = rendering(on_vllm(recipe), "model.prompt_format=chat")[1]
    assert "its tokenizer has no chat template, but model.prompt_format is chat" in fault


def test_a_model_that_is_incomplete_or_damaged_is_a_fault(recipe: Write, tmp_path: Path) -> None:
    """The messages are shown all the same."""
    path = on_vllm(recipe)
    (tmp_path / "model").mkdir()
    (entry,), (fault,), _ = rendering(path)
    assert "holds no complete model: config.json is missing" in fault
    assert entry.lines() == ["capital: 4 prompts", "  user: Capital of France?"]

    write_model(tmp_path / "model")
    (tmp_path / "model" / "tokenizer.json").write_text("{}")
    assert "model './model': its tokenizer does not load: " in rendering(path)[1][0]


# -- by a server -------------------------------------------------------------------------------------------------------


def rendered_by_server(body: dict[str, Any]) -> str:
    if "prompt" in body:
        return str(body["prompt"])
    if body["messages"][0]["role"] == "system":
        raise ValueError("System role not supported")
    turns = "".join(f"<{turn['role']}>{turn['content']}" for turn in body["messages"])
    return f"{turns}<assistant>{'<think>' if body.get('chat_template_kwargs', {}).get('thinking') else ''}"


def test_a_server_shows_what_it_renders(recipe: Write) -> None:
    with FakeOpenAI(render=rendered_by_server) as server:
        (entry,), faults, notes = rendering(on_server(recipe, server))

    assert entry.text == "<user>Capital of France?<assistant>"
    assert (entry.tokens, entry.counted, entry.most, entry.context) == (35, 4, 35, 1000)
    assert (faults, notes) == ((), ())


def test_a_server_renders_with_the_fields_of_the_requests(recipe: Write) -> None:
    """Those of extra_body that reach the template, and the prompt alone for the completions API."""
    more = {"extra_body": {"chat_template_kwargs": {"thinking": True}, "priority": 1}}
    with FakeOpenAI(render=rendered_by_server) as server:
        path = on_server(recipe, server)
        thinks = rendering(path, f"engine.extra_body={more['extra_body']}")[0][0]
        plain = rendering(path, "engine.api=completions")[0][0]

    assert (thinks.text or "").endswith("<assistant><think>")
    assert thinks.thinking == "thinking begins in the prompt, by <think>"
    assert plain.text == "Capital of France?"


def test_a_server_is_asked_for_the_longest_prompts(recipe: Write, tmp_path: Path) -> None:
    with FakeOpenAI(render=rendered_by_server, context=60) as server:
        path = on_server(recipe, server)
        with (tmp_path / "prompts.jsonl").open("a") as file:
            for number in range(40):
                file.write(f'{{"country": "{"x" * number}", "answer": "?"}}\n')
        (entry,), (fault,), _ = rendering(path)

    assert (entry.prompts, entry.counted, entry.most) == (44, 1 + ASKED, 29 + 39)
    assert entry.lines()[0] == "capital: 44 prompts, the first and the longest 35 to 68 tokens"
    assert "8 of the 9 prompts counted leave no room" in fault
    assert "start the server with a longer context" in fault


@pytest.mark.slow
def test_a_server_that_refuses_a_role_is_quoted(recipe: Write) -> None:
    with FakeOpenAI(render=rendered_by_server) as server:
        (entry,), (fault,), _ = rendering(on_server(recipe, server, prompts=family(system="Be brief.")))

    assert "the model's chat template refuses the role system: System role not supported (at least 1 prompts)" in fault
    assert entry.text is None


@pytest.mark.parametrize("owner", ["vllm", "openai"])
def test_a_server_that_does_not_show_its_prompts_is_noted(recipe: Write, owner: str) -> None:
    with FakeOpenAI(owned_by=owner) as server:
        (entry,), faults, notes = rendering(on_server(recipe, server))

    assert entry.lines() == ["capital: 4 prompts", "  user: Capital of France?"]
    assert (faults, notes) == ((), ("the server renders the prompts, and does not show them: their tokens are not counted",))


def test_a_server_that_does_not_answer_is_a_fault(recipe: Write) -> None:
    _, (fault,), _ = rendering(on_server(recipe, f"http://127.0.0.1:{free_port()}/v1"))
    assert fault.startswith("no server can be reached (GET http://127.0.0.1:")

    with FakeOpenAI(models=("smell",)) as server:
        _, (fault,), _ = rendering(on_server(recipe, server))
    assert "does not serve small, only smell; did you mean smell?" in fault


# -- in words ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "marking", "words"),
    [
        ("<assistant>", None, "reasoning is not taken apart (model.reasoning is null)"),
        ("<assistant>", USUAL, "the model has no thinking marks"),
        ("<assistant>", Marking((("[T]", "[/T]"),)), "thinking begins in the completion, by [T]"),
        ("<assistant>", Marking((), channels=True), "thinking begins in the completion, by its channels"),
        ("<assistant>[T]\n", Marking((("[T]", "[/T]"),)), "thinking begins in the prompt, by [T]"),
        ("<assistant>[T]\n\n[/T]\n\n", Marking((("[T]", "[/T]"),)), "the prompt ends the thinking, by [/T]"),
    ],
    ids=["null", "unknown", "completion", "channels", "prompt", "closed"],
)
def test_where_thinking_begins(text: str, marking: Marking | None, words: str) -> None:
    assert where_thinking_begins(text, marking) == words


def test_long_prompts_are_shortened_in_a_terminal() -> None:
    turns = [{"role": "user", "content": f"line {number}\n{'x' * 200}"} for number in range(20)]
    lines = turn_lines([*turns, {"role": "assistant", "content": "", "tool_calls": []}])

    assert len(lines) == 7
    assert lines[0].startswith("  user: line 0\\nxxx")
    assert lines[3] == "  ... 15 messages more"
    assert lines[-1] == "  assistant:  [tool_calls]"
    assert all(len(line) <= 113 for line in lines)
    assert cut("short") == "short"
