"""The temperature study: what temperature, and small changes of the prompt, do to a model's answers."""
