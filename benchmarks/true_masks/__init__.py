"""How near an interpreter's masks come to the true ones."""
