"""Post-training quantization of PaddlePaddle inference models.

`quant_post_dynamic` stores weights as integers of 4, 8 or 16 bits, without data.
`quant_post_static` calibrates activations over data and writes an int8 model. `fold` makes a float
model smaller and faster, with the same outputs; `save_onnx` writes one as ONNX. `compare` shows the
cost of quantization, tensor by tensor. `make_predictor` runs what was written. `kernels` holds the
arithmetic.

Importing pyquant takes a few milliseconds: a name brings its module, and with it Paddle, when it is
used first. What pyquant has to say while it works goes to the logger ``pyquant``.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .version import __version__ as __version__

if TYPE_CHECKING:
    from . import kernels as kernels
    from .calibrating import calibrate as calibrate
    from .calibration.state import Calibration as Calibration
    from .comparing import compare as compare
    from .comparison.page import save_page as save_page
    from .comparison.report import ComparedTensor as ComparedTensor
    from .comparison.report import Comparison as Comparison
    from .comparison.similarity import Similarity as Similarity
    from .deployment import make_predictor as make_predictor
    from .dynamic import quant_post_dynamic as quant_post_dynamic
    from .dynamic import quant_post_only_weight as quant_post_only_weight
    from .errors import ActivationError as ActivationError
    from .errors import CalibrationDataError as CalibrationDataError
    from .errors import CalibrationFileError as CalibrationFileError
    from .errors import CalibrationInterrupted as CalibrationInterrupted
    from .errors import ClusterError as ClusterError
    from .errors import ModelCrashError as ModelCrashError
    from .errors import ModelFileError as ModelFileError
    from .errors import NothingQuantizedError as NothingQuantizedError
    from .errors import OutputError as OutputError
    from .errors import PyquantError as PyquantError
    from .errors import SettingError as SettingError
    from .errors import UnsupportedError as UnsupportedError
    from .images import Images as Images
    from .program.folding.fold import fold as fold
    from .program.model import Model as Model
    from .program.model import load_model as load_model
    from .program.model import save_model as save_model
    from .program.onnx_model.export import save_onnx as save_onnx
    from .program.quantizable import FloatOp as FloatOp
    from .result import QuantizationResult as QuantizationResult
    from .result import QuantizedTensor as QuantizedTensor
    from .static import quant_post as quant_post
    from .static import quant_post_static as quant_post_static
    from .verification.outcome import Verification as Verification
    from .verifying import verify as verify

_NAMES_BY_MODULE = {
    # Not of the name of the function, whose place in this module it would take.
    "calibrating": ("calibrate",),
    "calibration.state": ("Calibration",),
    "comparing": ("compare",),
    "comparison.page": ("save_page",),
    "comparison.report": ("ComparedTensor", "Comparison"),
    "comparison.similarity": ("Similarity",),
    "deployment": ("make_predictor",),
    "dynamic": ("quant_post_dynamic", "quant_post_only_weight"),
    "errors": (
        "ActivationError",
        "CalibrationDataError",
        "CalibrationFileError",
        "CalibrationInterrupted",
        "ClusterError",
        "ModelCrashError",
        "ModelFileError",
        "NothingQuantizedError",
        "OutputError",
        "PyquantError",
        "SettingError",
        "UnsupportedError",
    ),
    "images": ("Images",),
    "program.folding.fold": ("fold",),
    "program.model": ("Model", "load_model", "save_model"),
    "program.onnx_model.export": ("save_onnx",),
    "program.quantizable": ("FloatOp",),
    "result": ("QuantizationResult", "QuantizedTensor"),
    "static": ("quant_post", "quant_post_static"),
    "verification.outcome": ("Verification",),
    "verifying": ("verify",),
}
_MODULES = {name: module for module, names in _NAMES_BY_MODULE.items() for name in names}

__all__ = ["__version__", "kernels", *_MODULES]


def __getattr__(name: str) -> Any:
    """Import what is asked for the first time."""
    if name == "kernels":
        return import_module(".kernels", __name__)
    if name not in _MODULES:
        return _of_paddleslim(name)
    value = getattr(import_module(f".{_MODULES[name]}", __name__), name)
    globals()[name] = value
    return value


def _of_paddleslim(name: str) -> Any:
    from .paddleslim import refusal

    refused = refusal(name)
    if refused is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return refused


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
