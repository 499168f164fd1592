"""Static int8 on a transformer encoder with real weights, all-MiniLM-L6-v2."""
