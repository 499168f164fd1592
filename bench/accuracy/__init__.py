"""The accuracy of quantized image classifiers on real images."""

import os

# Before the first import of Paddle, whose own PTQ reads a .pdmodel only so. With 1 in its place,
# the networks are exported as .json.
os.environ.setdefault("FLAGS_enable_pir_api", "0")
