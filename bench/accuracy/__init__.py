"""The accuracy of quantized image classifiers on real images."""

import os

# Before the first import of Paddle, which then exports .pdmodel, the only form that its own PTQ
# reads. With 1 in its place, the networks are exported as .json.
os.environ.setdefault("FLAGS_enable_pir_api", "0")
