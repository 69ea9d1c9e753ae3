"""Export targets beside the bundle: one torch module, written in the forms that other engines read."""
