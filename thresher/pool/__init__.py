"""The pool of a run: its files and their entries, the journal of samples, rows, and what became of each sample."""
