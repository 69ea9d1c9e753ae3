"""Reporting: where a measurement was taken, its statistics, and the files and tables that hold it."""
