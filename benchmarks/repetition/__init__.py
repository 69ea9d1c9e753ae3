"""Which outputs of a generator have the same bits every time, and under which options."""
