"""The style interpreter: an ensemble of pixel classifiers on the generator's feature taps (DatasetGAN, Zhang et al. 2021)."""
