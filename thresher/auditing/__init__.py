"""What a run's numbers are, whether they add up, and how they are shown."""
