"""The accuracy of quantized image classifiers on real images."""

import os

# Must be set before the first import of Paddle, which then exports .pdmodel, the only form that its
# own PTQ reads. With 1 instead, the networks are exported as .json.
os.environ.setdefault("FLAGS_enable_pir_api", "0")
