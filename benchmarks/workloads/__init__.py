"""Speed of labelling at the sizes that people have: the reference algorithm, the graphs and the fused kernel."""
