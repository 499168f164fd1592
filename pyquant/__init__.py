"""Post-training quantization of PaddlePaddle inference models.

`quant_post_dynamic` stores weights as int8 or int16, without data. `quant_post_static` calibrates
activations over data and writes an int8 model. `fold` makes a float model smaller and faster, with
the same outputs. `compare` shows the cost of quantization, tensor by tensor. `make_predictor`
runs what was written. `kernels` holds the arithmetic.
"""

from . import kernels
from .calibrate import calibrate
from .calibration.state import Calibration
from .compare import compare
from .comparison.page import save_page
from .comparison.report import ComparedTensor, Comparison
from .comparison.similarity import Similarity
from .deployment import make_predictor
from .dynamic import quant_post_dynamic
from .errors import (
    ActivationError,
    CalibrationDataError,
    CalibrationFileError,
    CalibrationInterrupted,
    ClusterError,
    ModelCrashError,
    ModelFileError,
    OutputError,
    PyquantError,
    SettingError,
    UnsupportedError,
)
from .program.folding.fold import fold
from .program.model import Model, load_model, save_model
from .program.quantizable import FloatOp
from .result import QuantizationResult, QuantizedTensor
from .static import quant_post, quant_post_static
from .verification.outcome import Verification

__version__ = "0.1.0"

__all__ = [
    "ActivationError",
    "Calibration",
    "CalibrationDataError",
    "CalibrationFileError",
    "CalibrationInterrupted",
    "ClusterError",
    "ComparedTensor",
    "Comparison",
    "FloatOp",
    "Model",
    "ModelCrashError",
    "ModelFileError",
    "OutputError",
    "PyquantError",
    "QuantizationResult",
    "QuantizedTensor",
    "SettingError",
    "Similarity",
    "UnsupportedError",
    "Verification",
    "calibrate",
    "compare",
    "fold",
    "kernels",
    "load_model",
    "make_predictor",
    "quant_post",
    "quant_post_dynamic",
    "quant_post_static",
    "save_model",
    "save_page",
]
