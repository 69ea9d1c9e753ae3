"""The interpreter as a compiled kernel in place of a graph, on a processor or, in `gpu`, on a GPU.

service/kernel/ has its source, `native` loads it, `kernel` runs it on the taps of a batch, and `engine` puts mapping
and synthesis in front of it.
"""
