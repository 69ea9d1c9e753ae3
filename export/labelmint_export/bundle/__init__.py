"""From generator and interpreter to a bundle: graphs, shared weights, calibration, parity, manifest."""
