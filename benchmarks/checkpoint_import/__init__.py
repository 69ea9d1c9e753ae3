"""Time and memory that a large checkpoint takes to be read and to become a graph."""
