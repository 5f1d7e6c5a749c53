"""HTML pages that work offline: the report, runs side by side, and the page for reviews by hand."""
