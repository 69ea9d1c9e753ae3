"""Whether it pays to let an interpreter of the first annotated pictures choose the others."""
