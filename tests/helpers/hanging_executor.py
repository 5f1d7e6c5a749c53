"""vLLM's executor, with a step that never returns: `engine.options.distributed_executor_backend` takes its dotted name."""

import os
import time
from pathlib import Path
from typing import Any

from vllm.v1.executor.uniproc_executor import UniProcExecutor

from helpers.hanging import ALWAYS, HANG_FILE, LONG, ONCE, SLOW


class HangingExecutor(UniProcExecutor):  # type: ignore[misc]  # vLLM has no types here
    """Loads and runs the real model."""

    def execute_model(self, scheduler_output: Any, non_block: bool = False) -> Any:
        file = Path(os.environ[HANG_FILE])
        wanted = file.read_text() if file.exists() and scheduler_output.total_num_scheduled_tokens else None
        if wanted == ONCE:
            file.unlink()
        elif wanted == SLOW:
            time.sleep(0.1)
        if wanted in {ONCE, ALWAYS} or any(
            len(new.prompt_token_ids or ()) >= LONG for new in scheduler_output.scheduled_new_reqs
        ):
            time.sleep(1e6)
        return super().execute_model(scheduler_output, non_block)
