"""Samplers: prompts in, completions out, in the order in which they finish."""
