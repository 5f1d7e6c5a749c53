"""Runs: opening one, and the steps from a recipe to a dataset. Read `thresher.run.steps` first."""
