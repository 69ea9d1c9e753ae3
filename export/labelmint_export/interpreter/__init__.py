"""The style interpreter: an ensemble of pixel classifiers on feature taps (DatasetGAN, Zhang et al. 2021)."""
