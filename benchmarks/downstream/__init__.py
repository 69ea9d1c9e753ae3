"""Downstream use: a network trained on streamed samples alone, beside one trained on true labels."""
