"""How alike texts are: shingles and MinHash (kernel), duplicates (duplicates), edits (edits)."""
