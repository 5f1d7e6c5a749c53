"""Measure how similar texts are: signatures (MinHash), duplicates, edits, and runs of words that texts share."""
