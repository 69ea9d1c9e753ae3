"""Processes: each contender runs in one of its own, and says how much memory it took."""
