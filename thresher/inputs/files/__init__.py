"""Files of rows: which a path names, and what is in them."""
