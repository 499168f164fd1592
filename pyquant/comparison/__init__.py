"""The report that compares a float model with its quantized one, tensor by tensor.

Start at `pyquant.compare`. `quantization` reads what a program quantizes, `paired` runs both models
over the same data, `report` and `page` write tables and an HTML page. `compared` says which tensors
tell how near two models are, and `output_sums` measures it; the check of static mode uses both.
It imports `pyquant.calibration`, and whatever is below that.
"""
