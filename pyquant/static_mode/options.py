"""What a call of `quant_post_static` asks for, and whether that is possible."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import chain
from pathlib import Path
from typing import Any

from ..calibration.data import Source
from ..calibration.engines import engine_of
from ..calibration.run import Checkpoint, Engine, checkpoint_at
from ..calibration.source import CalibrationData
from ..calibration.state import Calibration
from ..calibration.thresholds import ALGORITHMS, AUTO
from ..errors import CalibrationDataError, SettingError, UnsupportedError
from ..program.quantizable import ACTIVATION_OP_TYPES
from ..program.saturation import PROCESSORS
from ..program.targets import target_of
from ..program.weights import WEIGHT_QUANTIZE_TYPES
from ..settings import check_choice, check_list, check_op_types, is_choice

Metric = Callable[[Any], float]
"""Of a model that runs in Paddle's Predictor; the greater the better."""

ADAROUND = "adaround"
ROUND_TYPES = ("round", ADAROUND)
"""How weights become integers."""

_SOURCES = ("batch_generator", "sample_generator", "data_loader")

_CHOICES = {
    "round_type": ROUND_TYPES,
    "algo": (*ALGORITHMS, AUTO),
    "activation_quantize_type": ("range_abs_max", "moving_average_abs_max", "abs_max"),
    "processors": PROCESSORS,
}

# Parameters of PaddleSlim's that have nothing to do here: the default, and why.
_WITHOUT_EFFECT = {
    "executor": (None, "not needed, calibration runs in Paddle's Predictor on the CPU"),
    "scope": (None, "not needed, parameters are read from the files"),
    "activation_quantize_type": ("range_abs_max", "the result is the same for each"),
    "is_use_cache_file": (False, "not needed, no activation is kept"),
    "cache_dir": (None, "not needed, no activation is kept"),
}

# What PaddleSlim's parameters may be, and why any other value is refused.
_SUPPORTED = {
    "weight_bits": (
        range(2, 9),
        "it must be 2 to 8, since an op whose weight has more runs in float: quant_post_dynamic "
        "makes such models.",
    ),
    "activation_bits": (
        (8,),
        "it must be 8, since oneDNN, TensorRT and Paddle-Lite have no kernels of other widths, "
        "and Paddle's int8 passes refuse them (quant_dequant_onednn_pass.cc). Keep in float what "
        "8 bits harm, by skip_tensor_list or eval_function.",
    ),
    "onnx_format": ((True,), "the older form of fake ops is not written; it must be True."),
}


@dataclass(frozen=True)
class Options:
    """The arguments of `quant_post_static`, by their names there, but for the models' files."""

    executor: Any
    scope: Any
    batch_generator: Source | None
    sample_generator: Source | None
    data_loader: Source | None
    batch_size: int
    batch_nums: int | None
    algo: str
    round_type: str
    hist_percent: float
    bias_correction: bool
    quantizable_op_type: Collection[str]
    is_full_quantize: bool
    weight_bits: int
    activation_bits: int
    activation_quantize_type: str
    weight_quantize_type: str
    optimize_model: bool
    onnx_format: bool
    skip_tensor_list: Collection[str] | None
    same_scale_tensor_list: Sequence[Sequence[str]] | None
    scale_dict: Mapping[str, float] | None
    deploy_backend: str | None
    is_use_cache_file: bool
    cache_dir: str | None
    calibration: Calibration | str | Path | None
    checkpoint: str | Path | None
    checkpoint_every: int
    engine: Any
    eval_function: Metric | None
    max_drop: float
    equalize: bool | None
    processors: str

    @classmethod
    def of(cls, arguments: Mapping[str, Any]) -> Options:
        """Take them from a call's arguments by name, of which there may be others.

        Raises:
            SettingError: one is wrong.
            UnsupportedError: one asks for what pyquant cannot do.
            CalibrationDataError: there is not one source of data.
        """
        options = cls(**{field.name: arguments[field.name] for field in fields(cls)})
        options._check()
        return options

    @property
    def data(self) -> CalibrationData:
        """The calibration data."""
        sources = {name: getattr(self, name) for name in _SOURCES}
        return CalibrationData(sources, self.batch_size, self.batch_nums)

    @property
    def kept_at(self) -> Checkpoint | None:
        """Where the calibration is kept while it runs."""
        return checkpoint_at(self.checkpoint, self.checkpoint_every)

    @property
    def run(self) -> Engine:
        """What runs the data."""
        return engine_of(self.engine)

    @property
    def rounds_by_moments(self) -> bool:
        """Whether a weight's integers depend on the inputs of its op."""
        return self.round_type == ADAROUND

    @property
    def needs_moments(self) -> bool:
        """Whether the second moments of the inputs of ops are asked for."""
        return self.rounds_by_moments or self.eval_function is not None

    @property
    def needs_samples(self) -> bool:
        """Whether something is chosen by a sample of each activation."""
        return self.algo == AUTO or self.equalizes

    @property
    def equalizes(self) -> bool:
        """Whether activations are divided by factors, where that is worth it."""
        # The maxima of whole samples do not change as they should by a factor of a channel.
        return self.equalize or (self.equalize is None and self.algo != "avg")

    @property
    def given_thresholds(self) -> set[str]:
        """The activations whose thresholds are given, or of several together."""
        return {*(self.scale_dict or ()), *chain(*(self.same_scale_tensor_list or ()))}

    @property
    def per_channel(self) -> bool:
        """Whether each channel of a weight has a threshold of its own."""
        return self.weight_quantize_type != "abs_max"

    @property
    def weight_levels(self) -> int:
        """The largest integer of a weight."""
        return int(2 ** (self.weight_bits - 1) - 1)

    @property
    def notes(self) -> list[str]:
        """Of every argument that was given without effect, why it has none."""
        return [
            f"{name}: {reason}"
            for name, (default, reason) in _WITHOUT_EFFECT.items()
            if getattr(self, name) != default
        ]

    def _check(self) -> None:
        for name, (values, reason) in _SUPPORTED.items():
            if not is_choice(getattr(self, name), values):
                raise UnsupportedError(f"{name}={getattr(self, name)!r} is not supported: {reason}")
        self._check_target()
        check_op_types(self.quantizable_op_type, ACTIVATION_OP_TYPES)
        for name, choices in _CHOICES.items():
            check_choice(name, getattr(self, name), choices)
        if not 0 < self.hist_percent <= 1:
            raise SettingError(
                f"hist_percent: {self.hist_percent} is not in (0, 1]; 0.9999 is 99.99 %."
            )
        engine_of(self.engine)
        self._check_rounding()
        self._check_thresholds()
        if not 0 <= self.max_drop < math.inf:
            raise SettingError(f"max_drop: {self.max_drop} is negative or not finite.")
        checkpoint_at(self.checkpoint, self.checkpoint_every)
        self._check_data()

    def _check_target(self) -> None:
        backend = self.deploy_backend
        target = target_of(backend)
        kind = self.weight_quantize_type
        check_choice("weight_quantize_type", kind, WEIGHT_QUANTIZE_TYPES)
        if kind not in target.weight_quantize_types:
            raise UnsupportedError(
                f"weight_quantize_type={kind!r}: a model for {backend} needs "
                f"{' or '.join(map(repr, target.weight_quantize_types))}."
            )
        if self.eval_function is not None and not target.runs_here:
            raise UnsupportedError(
                f"eval_function: it is given the int8 model, and one for {backend} does not run "
                "here. Leave out one of the two."
            )

    def _check_rounding(self) -> None:
        elsewhere = [
            name for name in ("calibration", "checkpoint", "engine") if getattr(self, name)
        ]
        if self.equalize and self.algo == "avg":
            raise SettingError(
                "equalize: algo='avg' takes the maxima of whole samples, which no factor of a "
                "channel changes as it should. Choose another algo."
            )
        wanting = [
            name
            for name, wants in (
                ("round_type='adaround'", self.rounds_by_moments),
                ("eval_function", self.eval_function is not None),
            )
            if wants
        ]
        if wanting and elsewhere:
            raise UnsupportedError(
                f"{wanting[0]}: it needs the data themselves, here; {elsewhere[0]} keeps "
                "histograms and samples alone. Leave out one of the two."
            )

    def _check_thresholds(self) -> None:
        for group in self.same_scale_tensor_list or ():
            check_list("same_scale_tensor_list", group)
        for name, threshold in (self.scale_dict or {}).items():
            if not (math.isfinite(threshold) and threshold > 0):
                raise SettingError(
                    f"scale_dict: the threshold of '{name}', {threshold}, is not finite and "
                    "positive."
                )

    def _check_data(self) -> None:
        if self.calibration is None:
            _ = self.data  # which says what is wrong with them
        elif any(getattr(self, name) is not None for name in (*_SOURCES, "checkpoint", "engine")):
            raise CalibrationDataError(
                f"calibration: with it, {', '.join(_SOURCES)}, checkpoint and engine have nothing "
                "to do. Give it alone."
            )
