"""The interpreter as a compiled kernel in place of a graph: several times as fast on a processor.

service/kernel/ has its source, `native` loads it, `kernel` runs it on the taps of a batch, and `engine` puts mapping
and synthesis in front of it.
"""
