"""Every error that pyquant raises on purpose.

All derive from :class:`PyquantError`. The message names the file, op or tensor, and what to do.
Mistakes in an argument's value are also ``ValueError``s, so that they read as usual in Python.
"""

from __future__ import annotations


class PyquantError(Exception):
    """Base of pyquant's errors."""


class ModelFileError(PyquantError):
    """A model or parameter file is missing, truncated, or does not belong to the other."""


class NonFiniteWeightError(ModelFileError):
    """A weight that is to become integers holds NaN or infinity; modes keep its ops in float."""


class UnsupportedError(PyquantError):
    """The model or the request is well formed, but pyquant cannot do it."""


class SettingError(PyquantError, ValueError):
    """An argument has a value that makes no sense for this model."""


class CalibrationDataError(PyquantError, ValueError):
    """Calibration data is absent, or does not fit the model's inputs."""


class ActivationError(PyquantError):
    """An activation cannot be calibrated: NaN, infinity, or nothing in it."""


class CalibrationFileError(PyquantError):
    """A saved calibration cannot be read, or is of another model or of other data."""


class ClusterError(PyquantError):
    """Ray cannot be initialized, or failed to run a batch: its worker died, or memory ran out."""


class CalibrationInterrupted(KeyboardInterrupt):
    """Ctrl-C during a calibration that has a checkpoint: the message says how to go on."""


class OutputError(PyquantError, OSError):
    """The result could not be written.

    What stood there before is unharmed; if it could not be put back, the message tells where it is.
    """
