"""Speech by espeak-ng (Debian's package), and music that pygame carries."""

from __future__ import annotations

import subprocess
import tempfile
import wave
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import signal

from .sources import package_file

Array = NDArray[Any]

_VOICES = ("en", "en-us", "de", "fr", "es", "it", "en+f3", "de+f2")
_TEXT = {
    "calibration": "All networks hear this sentence before they are quantized. It is of two parts.",
    "test": "Nothing of this was heard before. Numbers such as seven, eleven and ninety follow.",
}


def speech(part: str, rate: int, voices: int = len(_VOICES)) -> list[Array]:
    """Return one text spoken by several voices, float32 in [-1, 1]."""
    return [_spoken(_TEXT[part], voice, rate) for voice in _VOICES[:voices]]


def speech_over_music(part: str, rate: int) -> list[Array]:
    """Return speech with pygame's music behind it, more of it from voice to voice."""
    music = songs(rate)
    found = []
    for index, voice in enumerate(speech(part, rate)):
        behind = np.resize(music, len(voice)) * 0.15 * (index % 4)
        found.append((voice + behind).astype(np.float32))
    return found


def songs(rate: int) -> Array:
    """Return the music, float32 in [-1, 1]."""
    return _resampled(package_file("pygame", "examples/data/house_lo.wav"), rate)


def pieces(sounds: list[Array], length: int, count: int) -> Array:
    """Cut sounds into pieces of a length, float32[count, length]; sounds start again if needed."""
    whole = np.concatenate(sounds)
    starts = np.linspace(0, max(len(whole) - length, 1), count).astype(int)
    repeated = np.resize(whole, max(len(whole), length + len(whole)))
    return np.stack([repeated[start : start + length] for start in starts]).astype(np.float32)


def spectra(sound: Array, window: Array, hop: int) -> Array:
    """Return the log10 of the power in each frame, float32[frames, len(window) / 2 + 1]."""
    count = 1 + (len(sound) - len(window)) // hop
    frames = np.stack([sound[hop * index :][: len(window)] for index in range(count)])
    power = np.abs(np.fft.rfft(frames * window)) ** 2
    return np.asarray(np.log10(np.maximum(power, 1e-12)), np.float32)


def _spoken(text: str, voice: str, rate: int) -> Array:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "speech.wav"
        subprocess.run(["espeak-ng", "-v", voice, "-w", str(path), text], check=True)
        return _resampled(path, rate)


def _resampled(path: Path, rate: int) -> Array:
    with wave.open(str(path)) as file:
        kind = {1: np.uint8, 2: np.int16}[file.getsampwidth()]
        values = np.frombuffer(file.readframes(file.getnframes()), kind)
        values = values.reshape(-1, file.getnchannels()).mean(1)
        original = file.getframerate()
    centred = values - 128 if kind is np.uint8 else values / 256
    return np.asarray(signal.resample_poly(centred / 128, rate, original), np.float32)
