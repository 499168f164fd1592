"""What a comparison means, in words, and what to do next."""

from __future__ import annotations

import math
import shlex
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from .report import ComparedTensor, Comparison

# Errors of the outputs, as rms in percent of their variation: what is hardly seen, and what the
# check of static mode bears.
_SMALL, _LARGE = 2.0, 5.0

_APART = 3.0  # dB between the int8 run and its simulation that rounding does not explain


class Verdict(NamedTuple):
    """What a comparison means.

    Attributes:
        headline: in a few words.
        sentences: what int8 costs, on what, and why.
        command: what to do next, to paste; empty if there is nothing to mend.
    """

    headline: str
    sentences: list[str]
    command: str


def verdict_of(comparison: Comparison) -> Verdict:
    """Return what a comparison means."""
    worst = _worst_output(comparison)
    if worst is None or worst.error is None or worst.error_percent is None:
        return Verdict("The outputs cannot be compared", [], "")
    percent = worst.error_percent
    sentences = [
        f"Output '{worst.name}' differs from the float model's by {percent:.2g} % of its "
        f"variation (rms; SQNR {worst.error.sqnr:.1f} dB, cosine {worst.error.cosine:.5f}), on "
        f"{comparison.samples} samples.",
        *_size(comparison),
        *_speed(comparison.record),
        *_run_and_simulation(comparison),
    ]
    if percent <= _SMALL:
        return Verdict("Close to float", [*sentences, _METRIC], "")
    culprit = _culprit(comparison)
    if percent <= _LARGE:
        headline = "Near float: look at your own metric"
        advice = _METRIC
    else:
        headline = "Far from float"
        advice = "If the data are preprocessed as in production, keep ops in float."
    if culprit is None or comparison.record is None or "algo" not in comparison.record["settings"]:
        return Verdict(headline, [*sentences, advice], "")
    sentences += [
        advice,
        f"The error grows most in the op that computes '{culprit}'. To keep that op in float:",
    ]
    weight = comparison.weights_of.get(culprit, culprit)
    return Verdict(headline, sentences, _command(comparison, comparison.record, weight))


_METRIC = "Whether that matters, only your own metric tells: measure it on both models."


def _worst_output(comparison: Comparison) -> ComparedTensor | None:
    """Return the output, or the part of one, that errs most for its variation."""
    outputs = comparison.worst("int8 run") or comparison.worst("simulated")
    return max(outputs, key=_percent_or_worse) if outputs else None


def _percent_or_worse(tensor: ComparedTensor) -> float:
    percent = tensor.error_percent
    return math.inf if percent is None or math.isnan(percent) else percent


def _size(comparison: Comparison) -> list[str]:
    before, after = comparison.float_bytes, comparison.quantized_bytes
    if not before:
        return []
    return [f"The files take {after:,} bytes instead of {before:,} ({after / before:.2f})."]


def _speed(record: dict[str, Any] | None) -> list[str]:
    checked = (record or {}).get("verification")
    if not checked or None in map(checked.get, ("int8_seconds", "float_seconds", "speedup")):
        return []
    return [
        f"A sample took {1e3 * checked['int8_seconds']:.2f} ms in int8 and "
        f"{1e3 * checked['float_seconds']:.2f} ms in float when the model was quantized: int8 is "
        f"{checked['speedup']:.2f} times as fast, by the median of turns."
    ]


def _run_and_simulation(comparison: Comparison) -> list[str]:
    """Explain how far the int8 run is from what the program says."""
    runs, simulated = comparison.worst("int8 run"), comparison.worst("simulated")
    if not runs or not simulated or runs[0].error is None or simulated[0].error is None:
        return []
    run, says = runs[0].error.sqnr, simulated[0].error.sqnr
    if math.isnan(run) or math.isnan(says):
        return []
    if says - run < _APART:
        return [f"The int8 kernels compute what the program says ({run:.1f} and {says:.1f} dB)."]
    return [
        f"The int8 run is {says - run:.1f} dB farther from float than the program says: its "
        "products saturate on this processor, or a pass of Paddle changes it. Quantize with "
        "processors='any', for the target that it runs on."
    ]


def _culprit(comparison: Comparison) -> str | None:
    """Return the output of the quantized op in which the error grows most, in the program's order.

    The error of its activation alone would not tell: a channel far larger than the others hides
    what the others lose.
    """
    worst, grown, most = 0.0, 0.0, None
    for one in comparison.tensors:
        if one.kind != "op output" or one.error is None:
            continue
        power = 10 ** (-one.error.sqnr / 10)
        power = math.inf if math.isnan(power) else power
        if power - worst > grown:
            grown, most = power - worst, one.name
        worst = max(worst, power)
    return most


def _command(comparison: Comparison, record: dict[str, Any], culprit: str) -> str:
    """Return the command line that quantizes again, with one more tensor in float."""
    settings = record["settings"]
    parts = ["pyquant", "static", str(comparison.float_path)]
    parts += ["-o", str(comparison.quantized_path.parent)]
    given = f"{shlex.join(parts)} --data {comparison.data}"
    parts = []
    for name, default in _OPTIONS.items():
        if settings.get(name) not in (default, None):
            parts += [f"--{name.replace('_', '-')}", str(settings[name])]
    parts += [option for (name, value), option in _SWITCHES.items() if settings.get(name) is value]
    parts += ["--skip", *map(str, settings["skip_tensor_list"] or ()), culprit]
    return f"{given} {shlex.join(parts)}"


_OPTIONS: dict[str, Any] = {
    **{"deploy_backend": None, "processors": "any", "algo": "mse", "round_type": "round"},
    **{"hist_percent": 0.9999, "weight_bits": 8, "weight_quantize_type": "channel_wise_abs_max"},
    "max_error": 5.0,
}
_SWITCHES = {
    ("bias_correction", False): "--no-bias-correction",
    ("equalize", True): "--equalize",
    ("equalize", False): "--no-equalize",
    ("optimize_model", False): "--no-optimize",
    ("is_full_quantize", True): "--full-quantize",
}
