"""labelmint's contract: the wire schema, the bundle schema, sample addresses, and arrays as bytes."""
