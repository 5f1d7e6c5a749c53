"""Prefect flows: the steps of thresher.run.steps as tasks, with retries, artifacts, events and schedules."""
