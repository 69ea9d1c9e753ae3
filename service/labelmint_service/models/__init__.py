"""Models: bundles with the engines that run them, and which of them a name means.

served      a bundle goes in, a warm model comes out
latents     what the samples at some addresses put into the engine
numerics    what its outputs are bit-identical for
memory_use  by how much the process grew meanwhile
references  NAME, NAME@VERSION, NAME@ALIAS
catalog     which versions there are, how they do, and which of them a reference means
"""
