"""Training of the generator: networks, losses, augmentation, the loop, and what shows how good it is."""
