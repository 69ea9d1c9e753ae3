"""Peak memory of interpreter training at the size of the paper."""
