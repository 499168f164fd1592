"""Models in ONNX: `export.to_onnx` writes each op of a program as the nodes that `table` says.

Start at `export`, and then at `elementwise`, whose rows are the shortest. It imports
`pyquant.program`, and the package `onnx` when it is used.
A row of the table is a line of text, or a function that takes a `builder.Step`: the op, and the
nodes made so far. The modules of rows are named for what the ops do.
"""
