"""The embedded model's tokenizer with a chat template that knows tools, tool calls, their results, reasoning and
`enable_thinking`, in the manner of Hermes and Qwen3."""

import json
import shutil
from pathlib import Path

from thresher.inputs.models import Model, embedded_model

TEMPLATE = """\
{%- if tools %}<|im_start|>system
{% if messages[0].role == 'system' %}{{ messages[0].content }}

{% endif %}<tools>
{%- for tool in tools %}
{{ tool | tojson }}
{%- endfor %}
</tools><|im_end|>
{% elif messages[0].role == 'system' %}<|im_start|>system
{{ messages[0].content }}<|im_end|>
{% endif %}
{%- for message in messages %}
{%- if message.role == 'user' %}<|im_start|>user
{{ message.content }}<|im_end|>
{% elif message.role == 'assistant' %}<|im_start|>assistant
{% if message.reasoning_content %}<think>
{{ message.reasoning_content }}
</think>

{% endif %}{{ message.content }}
{%- for call in message.tool_calls or [] %}
<tool_call>{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}</tool_call>
{%- if call.function.arguments is not mapping %}{{ raise_exception('arguments must be an object') }}{% endif %}
{%- endfor %}<|im_end|>
{% elif message.role == 'tool' %}<|im_start|>user
<tool_response>{{ message.content }}</tool_response><|im_end|>
{% endif %}
{%- endfor %}
{%- if add_generation_prompt %}<|im_start|>assistant
{% if enable_thinking is defined and not enable_thinking %}<think>

</think>

{% endif %}{% endif %}"""


def with_tools(folder: Path) -> Model:
    """Write the tokenizer with this template into a new folder, without weights; return it as a model."""
    source = Path(embedded_model().path)
    folder.mkdir()
    for file in source.iterdir():
        if file.suffix in (".json", ".txt") and not file.name.endswith("index.json"):
            shutil.copy(file, folder / file.name)
    for file in folder.glob("*.jinja"):
        file.unlink()
    config = json.loads((folder / "tokenizer_config.json").read_text())
    config.pop("chat_template", None)
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    return Model("with tools", str(folder), None, None, None, None)
