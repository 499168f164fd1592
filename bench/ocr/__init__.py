"""Text recognition by PP-OCRv4: a real pretrained model and a task with known answers."""
