"""The interpreter as a compiled kernel in place of a graph, on a processor or, in `gpu`, on a GPU.

service/kernel/ has its source. `bundles` reads what it needs of a bundle, `weights` holds the interpreter as arrays and
`packing` puts them in the kernel's order; `native` loads the kernel, `kernel` runs it on the taps of a batch, `peaks`
finds keypoints in its heatmaps, and `engine` puts mapping and synthesis in front of it.
"""
