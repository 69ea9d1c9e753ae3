"""Picture sets that generators are trained on: rendered ones with true labels, and plain folders."""
