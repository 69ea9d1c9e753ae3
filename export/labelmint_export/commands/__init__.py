"""The commands of labelmint-export, one module a stage.

Each has `add_parsers`, and functions that take parsed arguments and return the text to print.
"""
