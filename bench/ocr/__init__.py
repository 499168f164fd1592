"""Text detection and recognition by PP-OCRv4: real pretrained models and known answers."""
