"""The runtimes beside Paddle's in which results are checked."""

from __future__ import annotations

from .onnx_runtime import ONNX_RUNTIME
from .openvino_runtime import OPENVINO

RUNTIMES = {"ONNX": ONNX_RUNTIME, "OpenVINO": OPENVINO}
"""By the ``deploy_backend`` of results that run there."""
