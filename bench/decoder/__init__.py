"""Static and dynamic int8 on a decoder with real weights, SmolLM2-135M-Instruct."""
