"""Runs: opening one, and the steps from a recipe to a dataset. Read `thresher.running.steps` first."""
