"""Models in ONNX: `export.to_onnx` writes each op of a program as the nodes that `table` says.

A row of the table is a line of text, or a function that takes a `builder.Step`: the op, and the
nodes made so far. The modules of rows are named for what the ops do.
"""
