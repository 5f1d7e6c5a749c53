"""The shapes: what a prompt, a sample, a verdict, a recipe and a manifest are. Imports nothing of ours."""
