"""A few batches of the calibration data, kept for checks of what is made from them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from .data import Feed

MOST_BATCHES = 4
MOST_BYTES = 1 << 26


@dataclass
class KeptBatches:
    """The batches with the least hashes: the same ones for any order and split of the data.

    There are at most `MOST_BATCHES`, and all but the first fit into `MOST_BYTES`.
    """

    by_hash: dict[str, Feed] = field(default_factory=dict)  # in the order of the hashes

    def add(self, feed: Feed) -> None:
        """Keep a copy of a batch, if it is among those with the least hashes."""
        key = batch_hash(feed)
        if len(self.by_hash) < MOST_BATCHES or key < max(self.by_hash):
            self._keep([(key, {name: array.copy() for name, array in feed.items()})])

    def merge(self, other: KeptBatches) -> None:
        """Keep what a calibration over all the data would have kept."""
        self._keep(other.by_hash.items())

    @property
    def feeds(self) -> list[Feed]:
        """The batches."""
        return list(self.by_hash.values())

    def _keep(self, others: Iterable[tuple[str, Feed]]) -> None:
        found = sorted({**self.by_hash, **dict(others)}.items())[:MOST_BATCHES]
        self.by_hash, total = {}, 0
        for key, feed in found:
            total += sum(array.nbytes for array in feed.values())
            if self.by_hash and total > MOST_BYTES:
                break
            self.by_hash[key] = feed


def batch_hash(feed: Feed) -> str:
    """Return the SHA-256 of the names, types, shapes and values of a batch."""
    digest = hashlib.sha256()
    for name, array in feed.items():
        digest.update(f"{name}{array.dtype}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).reshape(-1).view("u1").data)
    return digest.hexdigest()
