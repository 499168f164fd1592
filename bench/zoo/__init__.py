"""Real pretrained networks, from detectors to LSTMs, in every mode of pyquant."""

import os

# Networks are converted and exported as Paddle 3's .json, although bench.accuracy prefers .pdmodel.
os.environ.setdefault("FLAGS_enable_pir_api", "1")
