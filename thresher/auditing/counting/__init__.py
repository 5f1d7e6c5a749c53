"""Counts and evidence of single shards, and how their sums become the audit of a run."""
