"""The fused engine on a GPU: mapping and synthesis in onnxruntime, the interpreter as kernels compiled ahead.

`forms` lists the kernels and what of them is compiled in, `plan` says with what they are launched for one interpreter,
`binaries` reads them, `device` is what they run on and `driver` the CUDA driver as such a device, `interpreter` runs a
plan, `graphs` binds the graphs to memory of the device, `engine` joins them, and `proof` compares their labels with the
processor's. service/kernel/ has the source.
"""
