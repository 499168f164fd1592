"""The calibration data among a call's arguments."""

from __future__ import annotations

from functools import partial
from itertools import islice
from pathlib import Path

from ..errors import CalibrationDataError, SettingError, UnsupportedError
from ..program import proto
from ..program.model import Model
from .data import Feeds, Source, feeds_of_batches, feeds_of_samples, source_length
from .files import SampleFiles


class CalibrationData:
    """The one source of calibration data among the arguments of a call.

    ``sources`` are the arguments by name; all but one must be None. ``batch_size`` is for batches
    made from samples. ``shard`` (i, n) takes only every n-th of the first ``batch_nums`` batches,
    from the i-th on. Raises CalibrationDataError if there is no source or more than one, and
    SettingError if a number is less than one or ``shard`` is not 0 <= i < n.
    """

    def __init__(
        self,
        sources: dict[str, Source | None],
        batch_size: int,
        batch_nums: int | None,
        shard: tuple[int, int] | None = None,
    ) -> None:
        for name, number in (("batch_size", batch_size), ("batch_nums", batch_nums)):
            if number is not None and number < 1:
                raise SettingError(f"{name}: {number} is less than 1.")
        self._first, self._step = shard or (0, 1)
        if not 0 <= self._first < self._step:
            raise SettingError(f"shard: {shard} is not possible. Give (i, n) with 0 <= i < n.")
        given = [name for name, source in sources.items() if source is not None]
        if len(given) != 1:
            have = " and ".join(given) or "none of them"
            raise CalibrationDataError(
                f"calibration data: one of {', '.join(sources)} is needed, {have} was given."
            )
        source = sources[given[0]]
        assert source is not None
        is_path = isinstance(source, (str, Path))
        self._source = SampleFiles(Path(source)) if is_path else source  # type: ignore[arg-type]
        self._of_samples = is_path or given[0] == "sample_generator"
        self._batch_size = batch_size
        self._batch_nums = batch_nums

    def feeds(self, model: Model) -> Feeds:
        """Return checked feeds; raise UnsupportedError if an input holds sequences (LoD)."""
        _refuse_sequences(model)
        make = feeds_of_batches
        if self._of_samples:
            make = partial(feeds_of_samples, batch_size=self._batch_size)
        feeds = make(model.feeds, self._source, batch_nums=self._batch_nums)
        return islice(feeds, self._first, None, self._step)

    def batches(self) -> int | None:
        """Return the greatest possible number of batches, or None if it is unknown."""
        length = source_length(self._source)
        if length is not None and self._of_samples:
            length = -(-length // self._batch_size)
        known = [number for number in (length, self._batch_nums) if number is not None]
        return len(range(self._first, min(known), self._step)) if known else None


def _refuse_sequences(model: Model) -> None:
    """Refuse inputs that need LoD offsets, without which Paddle may crash."""
    for var in model.feeds:
        level = proto.lod_level(var)
        if level:
            raise UnsupportedError(
                f"{model.model_path}: input '{var.name}' holds variable-length sequences "
                f"(lod_level {level}), which cannot be given as data. Quantize the weights alone, "
                "with quant_post_dynamic, or export the model with padded inputs."
            )
