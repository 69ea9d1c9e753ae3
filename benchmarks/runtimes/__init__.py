"""Runtimes that could run the generator on a processor, side by side on the graph of a bundle."""
