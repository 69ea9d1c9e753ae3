"""The interpreter as a compiled kernel in place of a graph: several times as fast on a processor.

`interpreter.cpp` is the kernel, `build.py` compiles it (a user gets it compiled), `native` loads it, `kernel` runs it on
the taps of a batch, and `engine` puts mapping and synthesis in front of it.
"""
