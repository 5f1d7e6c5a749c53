"""What a run notes of its models: what identifies each, and the names by which they are told apart."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from schemas.engines import VllmEngine
from schemas.recipe import Recipe
from thresher import ids
from thresher.errors import RecipeError
from thresher.inputs import identity, models
from thresher.inputs.parser_names import check_parsers
from thresher.inputs.recipe_file import Loaded
from thresher.inputs.thinking import EFFORT_ARGUMENTS, budget_marks, marking_of, noted, reads_effort
from thresher.running.warm_engine import model_for

OF_A_MODEL = ("model", "engine", "reasoning", "tool_parser")
"""What decides the samples of one model; the rest of `decides` is common to all."""


def describe(loaded: Loaded) -> dict[str, Any]:
    """What run.json notes of the models of a recipe, with OF_A_MODEL as `decides`: of one model its own notes, of several a list
    of them as `models`. Raises RecipeError, ModelError."""
    recipe = loaded.recipe
    each = [_described(one) for one in loaded.of_each_model()]
    if not recipe.models:
        return each[0]
    for described, label in zip(each, _labels(each), strict=True):
        described |= {"label": label, "key": ids.digest("model", described["decides"])}
    _all_differ(loaded, each)
    chat = any(described["prompt_format"] == "chat" for described in each)
    return {
        "name": ", ".join(described["label"] for described in each),
        "prompt_format": "chat" if chat else "text",
        "models": each,
        "decides": {"models": {described["label"]: described.pop("decides") for described in each}},
    }


def grown(theirs: Mapping[str, Any], ours: Mapping[str, Any], drawn: Callable[[], set[str]]) -> tuple[bool, str]:
    """Whether `ours` decides the same samples as `theirs` or those of further models too; and the key of the one model that
    `theirs` names outside a list, else an empty text. `drawn` returns the keys of the models that have samples: others may be
    left out."""
    first = "" if "models" in theirs else ids.digest("model", {name: theirs.get(name) for name in OF_A_MODEL})
    keys, own = {first} if first else keys_of(theirs), keys_of(ours)
    if not own or _common(theirs) != _common(ours):
        return False, first
    return keys <= own or (not first and keys & drawn() <= own), first


def keys_of(decides: Mapping[str, Any]) -> set[str]:
    """The keys of the models in a list."""
    return {ids.digest("model", model) for model in decides.get("models", {}).values()}


def by_label(decides: Mapping[str, Any], label: str) -> dict[str, Any]:
    """What decides a run's samples, with its one model in a list as those of several are."""
    if "models" in decides:
        return dict(decides)
    return {**_common(decides), "models": {label: {name: decides.get(name) for name in OF_A_MODEL}}}


# -- inside --------------------------------------------------------------------------------------------------------------


def _common(decides: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in decides.items() if name not in (*OF_A_MODEL, "models")}


def _described(loaded: Loaded) -> dict[str, Any]:
    """One model as run.json notes it."""
    recipe = loaded.recipe
    check_parsers(recipe.model, recipe.engine, loaded.where)
    model = model_for(recipe, loaded.base)
    _room(loaded, recipe, model)
    _thinking(loaded, recipe, model)
    settings = identity.settings_of(recipe.engine, recipe.model, model)
    template = identity.own_template(recipe.engine, recipe.model, model)
    prompt_format = identity.prompt_format(recipe.engine, recipe.model, model)
    reasoning = noted(marking_of(recipe.model, model.path))
    decides = {
        "model": {
            "name": model.name,
            "revision": model.revision,
            "adapter": None if model.adapter is None else model.adapter.label,
            "chat_template_sha256": template,
            "prompt_format": prompt_format,
        },
        "engine": {"kind": recipe.engine.kind, **{name: settings[name] for name in settings if name != "prompt_format"}},
        "reasoning": reasoning,
        "tool_parser": recipe.model.tool_parser,
    }
    return {
        **asdict(model),
        "prompt_format": prompt_format,
        "settings": settings,
        "template": template,
        "reasoning": reasoning,
        "decides": decides,
    }


def _labels(each: Sequence[Mapping[str, Any]]) -> list[str]:
    """A name for each model that no other has: its name and adapter, if needed its revision, if needed its number."""
    labels = [model["name"] if model["adapter"] is None else f"{model['name']} with {model['adapter']['name']}" for model in each]
    for further in ("revision", None):
        twice = {label for label, count in Counter(labels).items() if count > 1}
        ends = [f"@{str(model[further])[:12]}" if further else f" #{number}" for number, model in enumerate(each, 1)]
        labels = [label + end if label in twice else label for label, end in zip(labels, ends, strict=True)]
    return labels


def _all_differ(loaded: Loaded, each: Sequence[Mapping[str, Any]]) -> None:
    """Raise RecipeError where two models would draw the same samples."""
    known: dict[str, int] = {}
    for number, model in enumerate(each):
        adapter = None if model["adapter"] is None else [model["adapter"]["name"], model["adapter"]["revision"]]
        identity_of = [model["name"], model["revision"], adapter, model["template"], model["settings"]]
        before = known.setdefault(ids.digest("same", identity_of), number)
        if before != number:
            raise RecipeError(
                f"{loaded.where(('models', number))}: the same model with the same settings as models[{before}], so both would "
                "draw the same samples; remove one, or raise sampling.samples_per_prompt"
            )


def _room(loaded: Loaded, recipe: Recipe, model: models.Model) -> None:
    """Refuse a max_tokens that leaves no room for a prompt. Whether each prompt fits shows when it is tokenised."""
    own = recipe.engine.max_model_len if isinstance(recipe.engine, VllmEngine) else None
    context = min((size for size in (own, model.context_tokens) if size is not None), default=None)
    if context is not None and recipe.sampling.max_tokens >= context:
        raise RecipeError(
            f"{loaded.where(('sampling', 'max_tokens'))}: {recipe.sampling.max_tokens} tokens leave no room for a prompt in the "
            f"context of {context}; lower it, or raise engine.max_model_len up to the model's {model.context_tokens}"
        )


def _thinking(loaded: Loaded, recipe: Recipe, model: models.Model) -> None:
    """Refuse a budget of thinking where the mark that would end it is unknown, and an effort that the template does not read. A
    server knows its own marks and template."""
    if not isinstance(recipe.engine, VllmEngine):
        return
    effort, chat = recipe.sampling.reasoning_effort, identity.prompt_format(recipe.engine, recipe.model, model) == "chat"
    if effort is not None and not (chat and reads_effort(model.path)):
        raise RecipeError(
            f"{loaded.where(('sampling', 'reasoning_effort'))}: the chat template of {model.name} reads neither "
            f"{' nor '.join(EFFORT_ARGUMENTS)}, so {effort} would change nothing; remove it"
        )
    if recipe.sampling.thinking_tokens is not None and budget_marks(marking_of(recipe.model, model.path)) is None:
        raise RecipeError(
            f"{loaded.where(('sampling', 'thinking_tokens'))}: the engine must know the one pair of marks between which "
            f"{model.name} thinks, and neither its chat template nor its tokenizer names one; set model.reasoning to "
            "{start: ..., end: ...}, or remove thinking_tokens"
        )
