"""How well sixteen pictures stand for all that a generator paints, by the rule that chose them."""
