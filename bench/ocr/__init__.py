"""Text recognition by PP-OCRv4: a real pretrained model and a task with known answers."""

import os

# Before the first import of Paddle, whose own PTQ reads a .pdmodel only so.
os.environ.setdefault("FLAGS_enable_pir_api", "0")
