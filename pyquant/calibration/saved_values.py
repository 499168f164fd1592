"""What the values of a saved calibration can be: a file may come from anywhere.

The functions raise ValueError, which says what is wrong.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from ..kernels import FRACTION_BITS
from ..program.parameters import Array
from ..program.proto import MOST_DIMENSIONS
from .channel_statistics import ActivationChannels
from .kept import MOST_BATCHES, KeptBatches, batch_hash
from .statistic import BINS, UNITS_PER_ONE, ActivationHistogram, width_exponent_for

_FLOAT_MAX = float(np.finfo(np.float32).max)
_MOST = 2**63 - 1


def check_format(header: Any) -> None:
    """Check that a header says which format and version the file has."""
    _require(isinstance(header, dict), "its header is no table")
    for name in ("format", "version"):
        _require(name in header and _HEADER[name](header[name]), f"its header has no {name}")


def check_header(header: dict[str, Any]) -> None:
    """Check the types and ranges of all that a header holds; other entries are refused."""
    _require(header.keys() == _HEADER.keys(), f"its header has {sorted(map(str, header))}")
    for name, check in _HEADER.items():
        _require(check(header[name]), f"its {name} is {_shown(header[name])}")
    tensors, channels = header["tensors"], header["channels"]
    for name in ("width_exponents", "sample_abs_max_sums"):
        _require(len(header[name]) == len(tensors), f"its {name} are not one for each tensor")
    unknown = sorted(channels.keys() - set(tensors))
    _require(not unknown, f"it has channels of {_shown(unknown)}, which is none of its tensors")
    progress = header["progress"]
    if header["segments"] is not None:
        done, total, first = header["segments"]
        is_under_way = done < total and first < header["batches"] and progress is not None
        _require(is_under_way, f"its segments are {_shown(header['segments'])}")
    seen = header["batches"] if progress is None else progress[0]
    _require(seen == header["batches"], f"its progress is {progress} of {header['batches']}")


def check_array(name: str, array: Array, dtype: Any, shape: tuple[int, ...]) -> None:
    """Check an array's type and shape; -1 is any size."""
    fits = array.ndim == len(shape) and all(
        want in (-1, have) for want, have in zip(shape, array.shape)
    )
    _require(
        array.dtype == dtype and fits,
        f"its '{name}' is {array.dtype}{list(array.shape)}, where {np.dtype(dtype)}{list(shape)} "
        "is expected",
    )


def check_statistic(tensor: str, one: ActivationHistogram) -> None:
    """Check that one histogram can have been counted."""
    counted = sum(one.counts.tolist())
    _require(counted == one.values, f"the histogram of '{tensor}' does not count its values")
    _require(
        0 <= one.abs_max <= _FLOAT_MAX, f"the largest magnitude of '{tensor}' is {one.abs_max}"
    )
    extremes = (one.minimum, one.maximum) if one.values else (0.0, 0.0)
    is_range = extremes[0] <= extremes[1] and max(map(abs, extremes)) == one.abs_max
    _require(is_range, f"the values of '{tensor}' lie in [{one.minimum}, {one.maximum}]")
    width = width_exponent_for(one.abs_max) if one.abs_max else None
    _require(
        one.width_exponent == width,
        f"the width exponent of '{tensor}' is {one.width_exponent}, not {width}",
    )
    _require(
        int(bool(one.values)) <= one.samples <= one.values,
        f"'{tensor}' has {one.samples} samples of {one.values} values",
    )
    _require(one.zeros <= one.values, f"'{tensor}' has {one.zeros} zeros of {one.values} values")
    most = one.samples * int(math.ldexp(one.abs_max, UNITS_PER_ONE))
    _require(
        0 <= one.sample_abs_max_sum <= most,
        f"the mean of the maxima of '{tensor}' is not below the largest one",
    )
    if one.channels is not None:
        _check_channels(tensor, one.channels, one)


def _check_channels(tensor: str, one: ActivationChannels, of: ActivationHistogram) -> None:
    sums, sample = one.sums, one.sample
    _require(
        sums.positions * sums.whole.size == of.values,
        f"'{tensor}' has {sums.positions} positions of {sums.whole.size} channels, and {of.values} "
        "values",
    )
    is_fraction = ((sums.fraction >= 0) & (sums.fraction < 1 << FRACTION_BITS)).all()
    most = min(one.sums.positions * of.abs_max + 1, float(_MOST))
    _require(
        bool(is_fraction and (np.abs(sums.whole.astype(np.float64)) <= most).all()),
        f"the sums of the channels of '{tensor}' are larger than its values can be",
    )
    _require(
        bool(((sample.abs_max >= 0) & (sample.abs_max <= of.abs_max)).all()),
        f"the channels of '{tensor}' are larger than its values are",
    )


def check_kept(kept: KeptBatches) -> None:
    """Check that the batches are those of their hashes, and no more than are kept."""
    _require(len(kept.by_hash) <= MOST_BATCHES, f"it holds {len(kept.by_hash)} batches")
    for key, feed in kept.by_hash.items():
        _require(batch_hash(feed) == key, f"its batch {_shown(key)} has been changed")


def check_members(names: Collection[str], known: Collection[str], prefix: str) -> None:
    """Check that all arrays are there, and no others but those that begin with ``prefix``."""
    given = {name for name in names if not name.startswith(prefix)}
    missing, more = sorted(set(known) - given), sorted(given - set(known))
    _require(not missing, f"its array '{missing[0] if missing else ''}' is missing")
    _require(not more, f"it holds an array {_shown(more)}, which no calibration has")


def _require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise ValueError(otherwise)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value <= _MOST


def _is_list_of(check: Any, value: Any) -> bool:
    return isinstance(value, list) and all(map(check, value))


def _are_names(value: Any) -> bool:
    return _is_list_of(lambda name: isinstance(name, str), value) and len(set(value)) == len(value)


def _is_exponent(value: Any) -> bool:
    return value is None or (type(value) is int and abs(value) < BINS)


def _is_progress(value: Any) -> bool:
    if value is None:
        return True
    return _is_list_of(_is_count, value) and len(value) == 2 and value[1] < 2**32


def _are_segments(value: Any) -> bool:
    return value is None or (_is_list_of(_is_count, value) and len(value) == 3)


def _is_hex(value: Any) -> bool:
    # As hex() writes it. A sum of 2^63 magnitudes, each below 2^278 units, has 341 bits.
    return (
        isinstance(value, str)
        and value.startswith("0x")
        and len(value) < 100
        and set(value[2:]) <= set("0123456789abcdef")
        and len(value) > 2
    )


def _are_channels(value: Any) -> bool:
    return isinstance(value, Mapping) and all(map(_is_channels, value.values()))


def _is_channels(value: Any) -> bool:
    """Return whether a value is the axis, and the numbers of positions, of channels and of rows."""
    if not isinstance(value, Sequence) or len(value) != 4:
        return False
    axis, *counts = value
    is_axis = type(axis) is int and -MOST_DIMENSIONS <= axis < MOST_DIMENSIONS
    return is_axis and all(_is_count(count) and count < 2**48 for count in counts)


_HEADER = {
    "format": lambda value: isinstance(value, str),
    "version": _is_count,
    "model": lambda value: isinstance(value, str) and len(value) <= 64,
    "tensors": _are_names,
    "batches": _is_count,
    "progress": _is_progress,
    "segments": _are_segments,
    "width_exponents": lambda value: _is_list_of(_is_exponent, value),
    "sample_abs_max_sums": lambda value: _is_list_of(_is_hex, value),
    "channels": _are_channels,
}
