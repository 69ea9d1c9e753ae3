"""Seeds of addresses that are taken: no two uses see the same samples.

Users rarely ask for seeds at the end of the range, and it would do no harm.
"""

CALIBRATION_SEED = 2**64 - 1
"""Give the quantiles of the image score in a manifest."""
PARITY_SEED = 2**64 - 2
"""A bundle's graphs are compared with float64 on these."""
BUNDLE_SEED = 2**64 - 3
"""`verify` runs the graphs of a bundle on these."""
REPORT_SEED = 2**64 - 4
"""`report` judges these; the annotated pictures have other seeds."""
STATISTICS_SEED = 2**64 - 5
"""Give mean and deviation of w, from which `invert` searches."""
ENGINES_SEED = 2**64 - 6
"""`verify --engine` compares engines on these."""
