"""What a case does, and what must not come of it.

A damaged file may be refused by one of pyquant's errors, or be taken for a model. A network must
compute the same when it is folded, nearly the same as int8, and exactly what its twin computes when
its weights alone are integers.
"""

from __future__ import annotations

import io
import json
import math
import shutil
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import numpy as np

import pyquant
from pyquant.calibration.channel_statistics import by_channel
from pyquant.calibration.state import Calibration, model_fingerprint
from pyquant.calibration.statistic import ActivationHistogram, empty_statistics
from pyquant.dynamic import WEIGHT_BITS
from pyquant.errors import (
    ActivationError,
    CalibrationDataError,
    NothingQuantizedError,
    PyquantError,
)
from pyquant.program.folding.linear import channel_axes
from pyquant.program.predictor import Optimization, make_predictor, run_outputs
from pyquant.program.quantizable import ACTIVATION_OP_TYPES
from pyquant.static_mode.options import CalibrationOptions
from pyquant.static_mode.plan import plan_static
from pyquant.verification.runtime_check import is_installed
from pyquant.verification.runtimes import RUNTIMES

from .mutation import damaged_bytes, damaged_json, damaged_program
from .networks import Network, Plan, random_plan
from .shrinking import shrunk_test

_SOURCES = 24  # networks that are damaged
_QUANTIZED = 0.2  # the share of damaged files which are taken that one of the modes quantizes
_ALL_ARE_ZERO = "was zero in all"  # by an activation, what can be quantized
_TARGETS = (None, "QDQ", "TensorRT", "ARM")
_RUNTIMES = tuple(name for name, runtime in RUNTIMES.items() if is_installed(runtime))
_NEAR = 0.05  # the power of an int8 network's error, as a share of the outputs'
_JSON_MODELS = Path(__file__).parents[2] / "tests" / "data"
Stage = Callable[[str], None]
"""Takes what a case does next, so that it is known if the process dies."""


class WrongModelError(Exception):
    """A model computes something else than it should."""


class NetworkError(Exception):
    """A random network fails; the text is a test of a smaller one, the cause is the error."""


class Cases:
    """The cases of a seed, which work in a directory."""

    def __init__(self, seed: int, directory: Path) -> None:
        self._seed = seed
        self._directory = directory
        self._models = [
            _files(self._network(f"source {index}").save(directory / "source"))
            for index in range(_SOURCES)
        ]
        self._json_models = [_files(path.parent) for path in _JSON_MODELS.rglob("*.json")]
        self._calibration = self._made_calibration()
        with np.load(io.BytesIO(self._calibration)) as stored:
            self._arrays = dict(stored)

    def run(self, number: int, kinds: tuple[str, ...], stage: Stage) -> str:
        """Run a case; return "taken", or the type of the error by which pyquant refused it.

        Every other error is a find.
        """
        random = Random(f"{self._seed}/{number}")
        kind = random.choices(kinds, [KINDS[kind].share for kind in kinds])[0]
        work = self._directory / "case"
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        stage(kind)
        try:
            KINDS[kind].run(self, random, work, stage)
        except PyquantError as error:
            return type(error).__name__
        return "taken"

    def _network(self, name: str) -> Network:
        return Network(random_plan(Random(f"{self._seed}/{name}")))

    def _made_calibration(self) -> bytes:
        network = self._network("calibration")
        source = network.save(self._directory / "calibrated")
        path = self._directory / "calibration.npz"
        pyquant.calibrate(source, data_loader=network.feeds(2)).save(path)
        return path.read_bytes()

    def _damaged_model(self, random: Random, work: Path, stage: Stage) -> None:
        files = dict(random.choice(self._models))
        _change(files, "m.pdmodel", (damaged_program,) * 5 + (damaged_bytes,), random)
        _use(files, work, random, stage)

    def _damaged_json(self, random: Random, work: Path, stage: Stage) -> None:
        files = dict(random.choice(self._json_models))
        name = next(name for name in files if name.endswith(".json"))
        _change(files, name, (damaged_json,) * 3 + (damaged_bytes,), random)
        _use(files, work, random, stage)

    def _damaged_parameters(self, random: Random, work: Path, stage: Stage) -> None:
        files = dict(random.choice([*self._models, *self._json_models]))
        name = next(name for name in files if name.endswith(".pdiparams"))
        _change(files, name, (damaged_bytes,), random)
        _use(files, work, random, stage)

    def _damaged_calibration(self, random: Random, work: Path, stage: Stage) -> None:
        path = work / "c.npz"
        if random.random() < 2 / 3:
            path.write_bytes(_damaged_archive(self._arrays, random))
        else:
            path.write_bytes(damaged_bytes(self._calibration, random))
        calibration = Calibration.load(path)
        if random.random() < _QUANTIZED:
            stage("merge")
            Calibration.merge([calibration, calibration]).save(work / "merged.npz")
            Calibration.load(work / "merged.npz")
            stage("static")
            source = self._directory / "calibrated"
            pyquant.quant_post_static(
                None, source, work / "out", calibration=calibration, verify=False
            )

    def _random_network(self, random: Random, work: Path, stage: Stage) -> None:
        plan = random_plan(random)
        try:
            check_network(plan, work, stage)
        except (NothingQuantizedError, ActivationError):  # its values may overflow
            raise
        except Exception as error:
            if isinstance(error, CalibrationDataError) and _ALL_ARE_ZERO in str(error):
                raise
            raise NetworkError(shrunk_test(plan, check_network, work)) from error


class Kind(NamedTuple):
    """A kind of cases, and how many there are of it for one random network."""

    run: Callable[[Cases, Random, Path, Stage], None]
    share: int


KINDS: Mapping[str, Kind] = {
    "model": Kind(Cases._damaged_model, 40),
    "json": Kind(Cases._damaged_json, 20),
    "parameters": Kind(Cases._damaged_parameters, 20),
    "calibration": Kind(Cases._damaged_calibration, 20),
    "network": Kind(Cases._random_network, 1),
}
"""The kinds of cases, by name."""


def check_network(plan: Plan, work: Path, stage: Stage = lambda name: None) -> None:
    """Raise an error if a network computes something else folded, or quantized.

    Its files go into ``work``.
    """
    random, network = Random(plan.seed), Network(plan)
    source, feeds = network.save(work / "float"), network.feeds(3)
    model = pyquant.load_model(source)
    expected = _outputs(model, feeds)
    stage("fold")
    folded = pyquant.load_model(source)
    pyquant.fold(folded)
    pyquant.save_model(folded, work / "folded", "m.pdmodel", "m.pdiparams")
    folded = pyquant.load_model(work / "folded")
    _compare("folded", _outputs(folded, feeds), expected, 1e-8)
    stage("optimized")
    for what, one in (("float", model), ("folded", folded)):
        found = _outputs(one, feeds, Optimization.FUSED)
        _compare(f"{what}, optimized by Paddle", found, expected, 1e-8)
    stage("dynamic")
    weights = {**_weights(random), "lite_format": False, "generate_test_model": True}
    result = pyquant.quant_post_dynamic(source, work / "dynamic", **weights)
    assert result.test_model_path is not None
    twin = _outputs(pyquant.load_model(result.test_model_path.parent), feeds)
    found = _outputs(pyquant.load_model(result.model_path.parent), feeds)
    _compare(f"dynamic {weights}", found, twin, 1e-8)
    stage("static")
    target = random.choice((*_TARGETS, *_RUNTIMES))
    result = pyquant.quant_post_static(
        None, source, work / "int8", data_loader=feeds, deploy_backend=target
    )
    checked = result.verification
    if checked is None:
        return
    if checked.departs:
        raise WrongModelError(f"the run departs: {checked}")
    if target in _RUNTIMES:  # Paddle does not run it
        if not checked.error_percent <= 100 * math.sqrt(_NEAR):
            raise WrongModelError(f"{target}: {checked}")
        return
    predictor = pyquant.make_predictor(work / "int8")
    _compare("int8", [run_outputs(predictor, feed) for feed in feeds], expected, _NEAR)


def _files(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir() if path.is_file()}


def _change(files: dict[str, bytes], name: str, changes: tuple[Any, ...], random: Random) -> None:
    files[name] = random.choice(changes)(files[name], random)


def _use(files: Mapping[str, bytes], work: Path, random: Random, stage: Stage) -> None:
    """Do with a model what can be done without running it, except for its constants."""
    for name, content in files.items():
        (work / name).write_bytes(content)
    model = pyquant.load_model(work)
    _ = model.feeds, model.fetches, model.dims()
    if random.random() < _QUANTIZED:
        name, use = random.choice((("dynamic", _quantize_weights), ("static", _quantize)))
        stage(name)
        use(work, random)


def _quantize_weights(work: Path, random: Random) -> None:
    pyquant.quant_post_dynamic(work, work / "dynamic", **_weights(random))


def _weights(random: Random) -> dict[str, Any]:
    """Return arguments of dynamic mode."""
    bits = random.choice(WEIGHT_BITS)
    size = random.choice((None, 32, 64)) if bits < 16 else None
    return {"weight_bits": bits, "group_size": size, "lite_format": random.random() < 0.1}


def _quantize(work: Path, random: Random) -> None:
    """Quantize a model by statistics of random activations, as if it had run."""
    backend = random.choice(_TARGETS)
    model = pyquant.load_model(work)
    plan = plan_static(model, _options(backend))
    axes, dims = channel_axes(model, plan.ops), model.dims()
    statistics = empty_statistics(plan.int8.observed, ActivationHistogram, axes)
    values = np.random.default_rng(random.getrandbits(32))
    for name, statistic in statistics.items():
        shape = [min(size, 64) if size > 0 else 2 for size in dims[name]] or [2]
        array = values.standard_normal(shape).astype(np.float32)
        if statistic.channels is not None:
            statistic.observe(by_channel(array, statistic.channels.axis, None))
        else:
            statistic.observe(array.reshape(len(array), -1))
    calibration = Calibration(model_fingerprint(model), statistics, 1)
    pyquant.quant_post_static(
        *(None, work, work / "static"),
        calibration=calibration,
        deploy_backend=backend,
        verify=False,
    )


def _options(backend: str | None) -> CalibrationOptions:
    return CalibrationOptions(
        batch_generator=[None],
        sample_generator=None,
        data_loader=None,
        batch_size=1,
        batch_nums=None,
        quantizable_op_type=ACTIVATION_OP_TYPES,
        skip_tensor_list=None,
        deploy_backend=backend,
        optimize_model=True,
        is_full_quantize=False,
        processors="any",
        checkpoint=None,
        checkpoint_every=1,
        engine=None,
        shard=None,
        memory_limit=None,
    )


def _damaged_archive(arrays: Mapping[str, Any], random: Random) -> bytes:
    """Return an archive with an array changed: bytes of its values, or the JSON of the header."""
    arrays = dict(arrays)
    name = random.choice(["header", *arrays])
    if name == "header":
        changed = damaged_json(str(arrays[name]).encode(), random).decode()
        arrays[name] = np.array(json.dumps(json.loads(changed)))
    elif random.random() < 0.1:
        del arrays[name]
    else:
        values = arrays[name].copy()
        flat = values.reshape(-1)
        if flat.size:
            flat[random.randrange(flat.size)] = random.choice((0, 1, np.iinfo(np.int32).max))
        arrays[name] = values if random.random() < 0.8 else flat[: flat.size // 2]
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for key, array in arrays.items():
            content = io.BytesIO()
            np.save(content, array)
            archive.writestr(f"{key}.npy", content.getvalue())
    return stream.getvalue()


def _outputs(
    model: Any, feeds: list[dict[str, Any]], optimization: Optimization = Optimization.NONE
) -> list[Any]:
    predictor = make_predictor(model, optimization, 1)
    return [run_outputs(predictor, feed) for feed in feeds]


def _compare(what: str, found: list[Any], expected: list[Any], most: float) -> None:
    """Raise WrongModelError if an output's error has more than a share of its power."""
    for index, outputs in enumerate(zip(zip(*found), zip(*expected))):
        one, other = (np.concatenate([part.reshape(-1) for part in parts]) for parts in outputs)
        power = float(np.square(other, dtype=np.float64).sum())
        error = float(np.square(one.astype(np.float64) - other).sum())
        if not error <= most * power + 1e-12:
            raise WrongModelError(f"{what}: output {index} errs by {error / max(power, 1e-30):.3g}")
