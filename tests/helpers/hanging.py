"""What helpers.hanging_executor is told, without vLLM, whose import takes seconds."""

BACKEND = "helpers.hanging_executor.HangingExecutor"
"""Its dotted name."""
HANG_FILE = "THRESHER_TESTS_HANG_FILE"
"""The environment variable that names a file. A step that finds it never returns, and removes it before that if it says ONCE. If
it says SLOW, each step takes a tenth of a second longer."""
ONCE, ALWAYS, SLOW = "once", "always", "slow"
LONG = 400
"""Tokens of a prompt from which on a step that reads it never returns."""
