"""The oracle: a network that stands in for the person who labels sixteen pictures, and for the eye that judges them."""
