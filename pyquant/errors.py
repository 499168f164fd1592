"""Every error that pyquant raises on purpose.

All derive from :class:`PyquantError`. The message names the file, op or tensor, and what to do.
Mistakes in an argument's value are also ``ValueError``s, as is usual in Python.
"""

from __future__ import annotations

from .shown import shown


class PyquantError(Exception):
    """Base of pyquant's errors. Names in the message are escaped, and cut if they are long."""

    def __init__(self, message: str = "") -> None:
        super().__init__(shown(message))


class ModelFileError(PyquantError):
    """A model or parameter file is missing or truncated, or the two do not belong together."""


class NonFiniteWeightError(ModelFileError):
    """A weight to quantize holds NaN or infinity; the modes keep its ops in float."""


class UnsupportedError(PyquantError):
    """The model or the request is well formed, but pyquant cannot do it."""


class SettingError(PyquantError, ValueError):
    """An argument has a value that makes no sense for this model."""


class NothingQuantizedError(SettingError):
    """No op of the model can be quantized as was asked."""


class CalibrationDataError(PyquantError, ValueError):
    """Calibration data is absent, or does not fit the model's inputs."""


class ActivationError(PyquantError):
    """An activation cannot be calibrated: it holds NaN or infinity, or is empty."""


class CalibrationFileError(PyquantError):
    """A saved calibration cannot be read, or is of another model or of other data."""


class ModelCrashError(PyquantError):
    """The process that ran the model died; the message names the op that ran (``isolate=True``)."""


class ClusterError(PyquantError):
    """Ray cannot be initialized, or failed to run a batch: its worker died, or memory ran out."""


class CalibrationInterrupted(KeyboardInterrupt):
    """Ctrl-C or SIGTERM during a calibration with a checkpoint; the message says how to resume."""


class OutputError(PyquantError, OSError):
    """The result could not be written.

    Existing files are unharmed; if one could not be put back, the message says where it is.
    """
