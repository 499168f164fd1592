"""The report that compares a float model with its quantized one, tensor by tensor.

Start at `pyquant.compare`. `quantization` reads what a program quantizes, `paired` runs both models
over the same data, `report` and `page` write tables and an HTML page.
It imports `pyquant.calibration`, `pyquant.program` and `pyquant.kernels`.
"""
