"""Many streams for minutes: whether a server stays healthy, loses nothing and does not grow."""
