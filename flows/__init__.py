"""Prefect flows: the steps of thresher.running.steps as tasks, with retries, artifacts, events and schedules."""
