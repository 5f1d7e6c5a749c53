"""Duplicates within a run, beyond memory, against earlier releases, and in any table."""
