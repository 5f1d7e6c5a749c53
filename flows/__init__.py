"""When it runs: Prefect flows and tasks round the steps, and nothing that travels."""
