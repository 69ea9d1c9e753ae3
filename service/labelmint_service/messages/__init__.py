"""Messages: computed rows go in, serialised messages come out.

assembly     judges the rows of a delivery and builds the messages of those that are accepted, in worker threads
batching     splits rows into messages that are no larger than asked for
encoding     one array as PNG, JPEG, Zstandard or raw
shared_ring  raw arrays in memory that the caller shares
"""
