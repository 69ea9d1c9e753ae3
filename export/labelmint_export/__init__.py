"""Export side of labelmint: pictures, generators, interpreters and the bundles made from them."""
