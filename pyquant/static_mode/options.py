"""What a call of `calibrate` or `quant_post_static` asks for, and whether that is possible."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

from ..calibration.iteration import Source
from ..calibration.run import Checkpoint, Engine, checkpoint_at, run_here
from ..calibration.sequential import tight_limit
from ..calibration.source import CalibrationData
from ..calibration.state import Calibration
from ..calibration.thresholds import ALGORITHMS, AUTO
from ..errors import CalibrationDataError, SettingError, UnsupportedError
from ..memory import Size, size_in_bytes
from ..program.model import Model
from ..program.quantizable import ACTIVATION_OP_TYPES
from ..program.targets.profiles import Target, target_of
from ..program.targets.saturation import PROCESSORS
from ..program.weights import WEIGHT_QUANTIZE_TYPES
from ..settings import check_choice, check_list, check_op_types, is_choice

Metric = Callable[[Any], float]
"""Rates a model that runs in Paddle's Predictor; the greater the better."""

ADAROUND = "adaround"
ROUND_TYPES = ("round", ADAROUND)
"""How weights become integers."""

ACTIVATION_QUANTIZE_TYPES = ("range_abs_max", "moving_average_abs_max", "abs_max")

# Parameters of PaddleSlim that have no effect here: the default, and why.
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
    "onnx_format": (
        (True,),
        "the older form, of fake_quantize ops, is not written. Leave it out: Paddle's Predictor, "
        "TensorRT engine and Paddle-Lite of 2023 or later run what deploy_backend writes instead.",
    ),
}


def check_supported(**arguments: Any) -> None:
    """Raise UnsupportedError for values of PaddleSlim's parameters that are not supported."""
    for name, value in arguments.items():
        values, reason = _SUPPORTED[name]
        if not is_choice(value, values):
            raise UnsupportedError(f"{name}={value!r} is not supported: {reason}")


def notes_without_effect(**arguments: Any) -> list[str]:
    """Return why each ignored argument that was given has no effect."""
    return [
        f"{name}: {_WITHOUT_EFFECT[name][1]}"
        for name, value in arguments.items()
        if value != _WITHOUT_EFFECT[name][0]
    ]


_SETTINGS = (
    *("deploy_backend", "processors", "algo", "round_type", "hist_percent", "bias_correction"),
    *("equalize", "optimize_model", "quantizable_op_type", "is_full_quantize", "weight_bits"),
    *("weight_quantize_type", "skip_tensor_list", "same_scale_tensor_list", "scale_dict"),
    "max_error",
)


Kind = TypeVar("Kind", bound="CalibrationOptions")


@dataclass(frozen=True)
class CalibrationOptions:
    """The arguments of a calibration, by their names in `calibrate`, except the model's files.

    Raises SettingError if one is wrong, CalibrationDataError if there is not one source of data.
    """

    batch_generator: Source | None
    sample_generator: Source | None
    data_loader: Source | None
    batch_size: int
    batch_nums: int | None
    quantizable_op_type: Collection[str]
    skip_tensor_list: Collection[str] | None
    deploy_backend: str | None
    optimize_model: bool
    is_full_quantize: bool
    processors: str
    checkpoint: str | Path | None
    checkpoint_every: int
    engine: Any
    shard: tuple[int, int] | None
    memory_limit: Size | None

    def __post_init__(self) -> None:
        check_op_types(self.quantizable_op_type, ACTIVATION_OP_TYPES)
        check_choice("processors", self.processors, PROCESSORS)
        # Each of these raises an error if its arguments are wrong.
        _ = self.target, self.run, self.kept_at, self.most_bytes
        self._check()

    @property
    def target(self) -> Target:
        return target_of(self.deploy_backend, self.is_full_quantize, self.processors)

    @cached_property
    def data(self) -> CalibrationData:
        return CalibrationData(self._sources, self.batch_size, self.batch_nums, self.shard)

    @property
    def kept_at(self) -> Checkpoint | None:
        """Where the calibration is kept while it runs."""
        return checkpoint_at(self.checkpoint, self.checkpoint_every)

    @property
    def most_bytes(self) -> int | None:
        """The limit of resident memory, or None."""
        if self.memory_limit is None:
            return None
        if self.engine is not None:
            raise UnsupportedError(
                "memory_limit: engine runs a model as a whole on each worker. Leave out one of "
                "the two."
            )
        return size_in_bytes("memory_limit", self.memory_limit)

    def where_tight(self: Kind, model: Model) -> Kind:
        """Return the options with a limit of memory only if ``model`` does not fit into it."""
        if self.engine is not None:
            return self
        return replace(self, memory_limit=tight_limit(model, self.most_bytes))

    @cached_property
    def run(self) -> Engine:
        return _engine_of(self.engine)

    @property
    def _sources(self) -> dict[str, Source | None]:
        return {
            "batch_generator": self.batch_generator,
            "sample_generator": self.sample_generator,
            "data_loader": self.data_loader,
        }

    def _check(self) -> None:
        _ = self.data


@dataclass(frozen=True)
class Options(CalibrationOptions):
    """The arguments of `quant_post_static` likewise, except those of one value or without effect.

    Also raises UnsupportedError if one asks for what pyquant cannot do.
    """

    algo: str
    round_type: str
    hist_percent: float
    bias_correction: bool
    weight_bits: int
    weight_quantize_type: str
    same_scale_tensor_list: Sequence[Sequence[str]] | None
    scale_dict: Mapping[str, float] | None
    calibration: Calibration | str | Path | None
    eval_function: Metric | None
    max_drop: float
    equalize: bool | None
    max_error: float

    @property
    def settings(self) -> dict[str, Any]:
        """The arguments that are values, by name: what the result depends on beside the data."""
        return {name: getattr(self, name) for name in _SETTINGS}

    @property
    def most_power(self) -> float:
        """The share of an output's power, around its mean, that its error by int8 may have."""
        return (self.max_error / 100) ** 2

    @property
    def accuracy_settings(self) -> dict[str, Any]:
        """The arguments that promise accuracy beyond the defaults."""
        asked = {"round_type": self.rounds_by_moments, "algo": self.algo == AUTO}
        asked["equalize"] = bool(self.equalize)
        return {name: getattr(self, name) for name, is_asked in asked.items() if is_asked}

    @property
    def with_accuracy_settings(self) -> Options | None:
        """The same with those that need no more data; None if others than defaults were given."""
        if self.accuracy_settings or self.algo != "mse" or self.equalize is not None:
            return None
        return replace(self, algo=AUTO, equalize=True)

    @property
    def without_accuracy_settings(self) -> Options:
        """The same with the defaults in place of `accuracy_settings`."""
        plain: dict[str, Any] = {"round_type": ROUND_TYPES[0], "algo": "mse", "equalize": None}
        return replace(self, **{name: plain[name] for name in self.accuracy_settings})

    @property
    def rounds_by_moments(self) -> bool:
        """Whether a weight's integers depend on the inputs of its op."""
        return self.round_type == ADAROUND

    @property
    def needs_samples(self) -> bool:
        """Whether something is chosen by a sample of each activation."""
        return self.algo == AUTO or self.equalizes

    @property
    def equalizes(self) -> bool:
        """Whether activations are divided by factors, where that is worth it."""
        # The maxima of whole samples do not change as they should if a channel is divided.
        return self.equalize or (self.equalize is None and self.algo != "avg")

    @property
    def given_thresholds(self) -> set[str]:
        """The activations whose thresholds are given, or shared with others."""
        return {*(self.scale_dict or ()), *chain(*(self.same_scale_tensor_list or ()))}

    @property
    def per_channel(self) -> bool:
        """Whether each channel of a weight has a threshold of its own."""
        return self.weight_quantize_type != "abs_max"

    @property
    def weight_levels(self) -> int:
        """The largest integer of a weight."""
        return int(2 ** (self.weight_bits - 1) - 1)

    def _check(self) -> None:
        self._check_target()
        check_choice("round_type", self.round_type, ROUND_TYPES)
        check_choice("algo", self.algo, (*ALGORITHMS, AUTO))
        if not 0 < self.hist_percent <= 1:
            raise SettingError(
                f"hist_percent: {self.hist_percent} is not in (0, 1]; 0.9999 is 99.99 %."
            )
        self._check_rounding()
        self._check_thresholds()
        if not 0 <= self.max_drop < math.inf:
            raise SettingError(f"max_drop: {self.max_drop} is negative or not finite.")
        if not self.max_error > 0:
            raise SettingError(f"max_error: {self.max_error} is not above 0; 5 is 5 %.")
        others = (*self._sources.values(), self.checkpoint, self.engine)
        if self.calibration is None:
            super()._check()
        elif any(other is not None for other in others):
            raise CalibrationDataError(
                f"calibration: with it, {', '.join(self._sources)}, checkpoint and engine have "
                "nothing to do. Give it alone."
            )

    def _check_target(self) -> None:
        backend, target = self.deploy_backend, self.target
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
        elsewhere = [name for name in ("calibration", "engine") if getattr(self, name)]
        if self.equalize and self.algo == "avg":
            raise SettingError(
                "equalize: algo='avg' takes the maxima of whole samples, which no factor of a "
                "channel changes as it should. Choose another algo."
            )
        if self.rounds_by_moments and elsewhere:
            raise UnsupportedError(
                f"round_type='adaround': it needs the data themselves, here; {elsewhere[0]} keeps "
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


def _engine_of(engine: Any) -> Engine:
    """Return the engine for None or the module ``ray``; raise SettingError for anything else."""
    if engine is None:
        return run_here
    if getattr(engine, "__name__", None) != "ray":
        raise SettingError(f"engine: {engine!r} is not known. Give None, or the module ray.")
    from ..calibration.ray_engine import RayEngine

    return RayEngine(engine)
