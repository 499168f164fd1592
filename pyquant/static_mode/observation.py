"""Running the calibration data, and what they show of a model's activations."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from .. import kernels
from ..calibration.channel_factors import scaled_statistic
from ..calibration.data import Feed, check_feed
from ..calibration.kept import KeptBatches
from ..calibration.moments import Moments, moments_of, notes_on_moments
from ..calibration.run import collect_statistics, resume, run_here
from ..calibration.samples import ActivationSample
from ..calibration.sequential import collect_in_segments, resume_in_segments
from ..calibration.state import Calibration, model_fingerprint
from ..calibration.statistic import (
    ActivationHistogram,
    ActivationMaxima,
    Statistics,
    channels_of,
    empty_statistics,
)
from ..calibration.thresholds import statistic_of
from ..errors import ActivationError, CalibrationDataError, CalibrationFileError
from ..memory import available_bytes, resident_bytes
from ..program.folding.linear import channel_axes, weight_layout
from ..program.model import Model
from ..program.output_files import end_killed_runs
from ..program.parameters import Array
from ..program.per_token import token_maxima
from ..program.quantizable import FloatOp
from .options import CalibrationOptions, Options
from .plan import Plan


@dataclass(frozen=True)
class Observations:
    """What the calibration data show.

    Attributes:
        statistics: of each activation that becomes int8.
        means: float64[channels], of activations, if bias correction asks for them.
        moments: of what each op reads, if rounding asks for them.
        samples: of each activation of known channels, if anything is chosen by them.
        notes: what the user should know about how they were observed.
        feeds: a few batches of the data.
        batches: how many there were.
    """

    statistics: Statistics
    means: Mapping[str, Array]
    moments: Moments
    samples: Mapping[str, ActivationSample]
    notes: tuple[str, ...] = ()
    feeds: Sequence[Feed] = ()
    batches: int = 0

    def divided(self, factors: Mapping[str, Array]) -> Observations:
        """Return what is seen of the activations divided by factors, one per channel."""
        statistics, samples = dict(self.statistics), dict(self.samples)
        means, moments = dict(self.means), dict(self.moments)
        for name, divisors in factors.items():
            statistics[name] = scaled_statistic(samples[name], statistics[name], divisors)
            samples[name] = samples[name].divided(divisors)
            if name in means:
                means[name] = means[name] / divisors
            if name in moments:
                moments[name] = [one.divided(divisors) for one in moments[name]]
        return replace(self, statistics=statistics, means=means, moments=moments, samples=samples)

    def per_token(self, names: Collection[str]) -> Observations:
        """Return the same with means of some activations' quotients, as a sample shows them.

        Where positions differ in magnitude, the mean is that of the largest, and a correction by it
        is far too large for the others.
        """
        means = dict(self.means)
        for name in means.keys() & names:
            rows = self.samples[name].rows
            means[name] = (rows / token_maxima(rows)).mean(axis=0, dtype=np.float64)
        return replace(self, means=means)


def observe(model: Model, plan: Plan, options: Options) -> Observations:
    """Return what the data or a calibration show; ActivationError if one is never computed."""
    tensors = plan.int8.observed
    moments: Moments = {}
    if options.rounds_by_moments:
        moments = moments_of(model, plan.ops)
    statistics: Statistics
    if options.calibration is not None:
        calibration = _given(model, plan, options.calibration)
        batches, statistics, kept = calibration.batches, calibration.statistics, calibration.kept
    else:
        batches, statistics, kept = _collected(model, plan, tensors, moments, options)
        kernels.leave_openmp()  # Paddle's threads would spin between the kernels that decide
    for name, statistic in statistics.items():
        if not statistic.values:
            raise ActivationError(
                f"activation '{name}': it was never computed over {batches} batch(es). "
                "Give data that reaches it, or name it in skip_tensor_list."
            )
    channels = channels_of(statistics)
    _check_channels(model, plan, {name: one.sums.whole.size for name, one in channels.items()})
    means, samples = {}, {}
    if options.bias_correction:
        means = {name: one.sums.means for name, one in channels.items()}
    if options.needs_samples:
        samples = {name: one.sample for name, one in channels.items()}
    notes, feeds = _notes(statistics), kept.feeds
    if options.rounds_by_moments:
        notes += notes_on_moments(plan.ops, moments)
    return Observations(statistics, means, moments, samples, notes, feeds, batches)


def _check_channels(model: Model, plan: Plan, counts: Mapping[str, int]) -> None:
    """Refuse data of a shape that ops reshape into other channels than the weights have.

    Calibration stops once all is seen, which may be before an op that Paddle would refuse to run.
    """
    for op in plan.ops:
        if op.activation not in counts:
            continue
        inputs = weight_layout(op.desc(model), model.parameters[op.weight].shape).inputs
        if counts[op.activation] != inputs:
            raise CalibrationDataError(
                f"calibration data: activation '{op.activation}' has {counts[op.activation]} "
                f"channels with it, where weight '{op.weight}' takes {inputs}. Does the model take "
                "batches of this size?"
            )


def calibrate_model(
    model: Model, plan: Plan, options: CalibrationOptions, moments: Moments | None = None
) -> Calibration:
    """Calibrate what ``plan`` observes, resuming from the checkpoint if that exists.

    ``moments`` are observed, too, if there is a checkpoint, which then keeps them.
    """
    fingerprint, tensors = model_fingerprint(model), plan.int8.observed
    data, checkpoint = options.data, options.kept_at
    if checkpoint is not None and moments:
        checkpoint = replace(checkpoint, moments=moments)
    if checkpoint is not None and checkpoint.path.exists():
        end_killed_runs(checkpoint.path.parent)
        calibration = Calibration.load(checkpoint.path)
        calibration.check_same(fingerprint, tensors, str(checkpoint.path))
        _check_fits(model, plan, calibration, str(checkpoint.path))
    else:
        axes = channel_axes(model, plan.ops)
        statistics = empty_statistics(tensors, ActivationHistogram, axes)
        calibration = Calibration(fingerprint, statistics)
    feeds, total, limit = data.feeds(model), data.batches(), options.most_bytes
    if calibration.segments is not None and limit is None:
        limit = resident_bytes() + available_bytes()
    if limit is None:
        engine = partial(run_here, observers=moments) if moments else options.run
        resume(model, calibration, feeds, engine, checkpoint, total)
    elif checkpoint is not None:
        resume_in_segments(model, calibration, feeds, limit, checkpoint, total)
    else:
        found = collect_in_segments(model, calibration.statistics, feeds, limit, total=total)
        calibration.batches, calibration.kept, calibration.progress = found
    return calibration


def without_always_zero(plan: Plan, statistics: Statistics) -> Plan:
    """Return the plan without the ops whose activation was always zero.

    Raises CalibrationDataError if no op is left.
    """
    dead = [op for op in plan.ops if statistics[op.activation].abs_max == 0]
    if dead and len(dead) == len(plan.ops):
        names = list(dict.fromkeys(op.activation for op in dead))
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        raise CalibrationDataError(
            f"calibration data: all that could become int8, '{names[0]}'{more}, was zero in all of "
            "the data. Give data like those that the model will see, prepared in the same way."
        )
    kept = [
        FloatOp(op.op_type, op.output, f"activation '{op.activation}' was zero in all of the data")
        for op in dead
    ]
    return plan.of([op for op in plan.ops if op not in dead], kept)


def _notes(statistics: Statistics) -> tuple[str, ...]:
    """Note where only Paddle's optimized program computed NaN or infinity."""
    wrong = sorted(name for name, statistic in statistics.items() if statistic.non_finite)
    if not wrong:
        return ()
    more = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
    return (
        f"Paddle's optimized program computes NaN or infinity in '{wrong[0]}'{more}. The program "
        "as it is does not, so calibration went on with that: run the float model and this one "
        "with switch_ir_optim(False) as well, and compare",
    )


def _given(model: Model, plan: Plan, given: Calibration | str | Path) -> Calibration:
    """Return a calibration, or that of a file, after checking that it is the model's."""
    calibration = given if isinstance(given, Calibration) else Calibration.load(given)
    where = "calibration" if given is calibration else str(given)
    calibration.refuse_unfinished(where)
    calibration.check_same(model_fingerprint(model), plan.int8.observed, where)
    _check_fits(model, plan, calibration, where)
    return calibration


def _check_fits(model: Model, plan: Plan, calibration: Calibration, where: str) -> None:
    """Raise CalibrationFileError for channels along another axis, or batches of other inputs."""
    axes = channel_axes(model, plan.ops)
    for name, one in channels_of(calibration.statistics).items():
        if one.axis != axes.get(name, one.axis):
            raise CalibrationFileError(
                f"{where}: its channels of '{name}' lie along axis {one.axis}, those of the model "
                f"along {axes[name]}. Calibrate again."
            )
    for number, feed in enumerate(calibration.kept.feeds):
        try:
            check_feed(model.feeds, feed, f"kept batch {number}")
        except CalibrationDataError as error:
            raise CalibrationFileError(f"{where}: {error} Calibrate again.") from error


def _collected(
    model: Model,
    plan: Plan,
    tensors: Collection[str],
    moments: Moments,
    options: Options,
) -> tuple[int, Statistics, KeptBatches]:
    """Return the number of batches, the statistics and some batches; show all to ``moments``."""
    if options.checkpoint is not None:
        calibration = calibrate_model(model, plan, options, moments)
        return calibration.batches, calibration.statistics, calibration.kept
    kind: type[ActivationMaxima] = ActivationHistogram
    if not (plan.target.takes_zero_points or moments):
        kind = statistic_of(options.algo)
    by_channel = options.bias_correction or options.needs_samples
    axes = channel_axes(model, plan.ops) if by_channel else {}
    statistics = empty_statistics(tensors, kind, axes)
    feeds, total = options.data.feeds(model), options.data.batches()
    if options.most_bytes is not None:
        limit = options.most_bytes
        batches, kept, _ = collect_in_segments(model, statistics, feeds, limit, moments, total)
        return batches, statistics, kept
    engine = partial(run_here, observers=moments) if moments else options.run
    batches, kept = collect_statistics(model, statistics, feeds, engine, total)
    return batches, statistics, kept
