"""Calibrations by themselves: saved, loaded, merged, interrupted and continued."""

from __future__ import annotations

import gc
import math
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import programs
import pytest
from calibrations import BATCHES, quantized
from paddle_run import predict
from static_runs import model_bytes

import pyquant
from pyquant import (
    ActivationError,
    Calibration,
    CalibrationDataError,
    CalibrationFileError,
    CalibrationInterrupted,
    SettingError,
    calibrate,
    cli,
    quant_post_static,
)
from pyquant.calibration.forward import Forward
from pyquant.calibration.source import CalibrationData
from pyquant.calibration.statistic import ActivationHistogram
from pyquant.calibration.thresholds import ALGORITHMS
from pyquant.program import predictor
from pyquant.program.predictor import Optimization

pytestmark = pytest.mark.any_isa


@pytest.mark.parametrize("shards", [1, 2, 5, 13])
def test_merged_shards_make_the_same_model(tmp_path: Path, source: Path, shards: int) -> None:
    paths = []
    for shard in range(shards):
        paths.append(tmp_path / f"{shard}.npz")
        calibrate(source, data_loader=BATCHES[shard::shards]).save(paths[-1])
    random.Random(shards).shuffle(paths)
    merged = Calibration.merge(map(Calibration.load, paths))
    assert merged.batches == len(BATCHES)
    merged.save(tmp_path / "all.npz")
    for algo in ALGORITHMS:
        expected = quantized(source, tmp_path / f"{algo}1", algo, data_loader=BATCHES)
        for number, given in enumerate((merged, tmp_path / "all.npz", str(tmp_path / "all.npz"))):
            out = tmp_path / f"{algo}{number}"
            assert quantized(source, out, algo, calibration=given) == expected


def test_it_comes_back_as_it_was_saved(tmp_path: Path, source: Path) -> None:
    saved = calibrate(source, data_loader=BATCHES)
    for name in ("one.npz", "two.npz"):
        saved.save(tmp_path / name)
    assert (tmp_path / "one.npz").read_bytes() == (tmp_path / "two.npz").read_bytes()
    loaded = Calibration.load(tmp_path / "one.npz")
    assert (loaded.model_fingerprint, loaded.batches, loaded.progress) == (
        saved.model_fingerprint,
        13,
        saved.progress,
    )
    assert loaded.statistics.keys() == saved.statistics.keys() == {"x", "b", "f"}
    for name, statistic in saved.statistics.items():
        again = loaded.statistics[name]
        np.testing.assert_array_equal(again.counts, statistic.counts)
        for field in ("abs_max", "values", "samples", "sample_abs_max_sum", "minimum", "maximum"):
            assert getattr(again, field) == getattr(statistic, field)
        assert again.channels is not None
        assert statistic.channels is not None
        assert again.channels.axis == statistic.channels.axis
        for field in ("rows", "abs_max"):
            kept = getattr(statistic.channels.sample, field)
            np.testing.assert_array_equal(getattr(again.channels.sample, field), kept)


def test_what_is_not_a_calibration_is_named(tmp_path: Path, source: Path) -> None:
    path = tmp_path / "c.npz"
    calibrate(source, data_loader=BATCHES[:2]).save(path)
    good = path.read_bytes()
    damaged = bytearray(good)
    damaged[len(good) // 2] ^= 1
    for content in (b"", b"text", good[: len(good) // 2], good[:-1], bytes(damaged)):
        path.write_bytes(content)
        with pytest.raises(CalibrationFileError, match=r"/c\.npz: "):
            Calibration.load(path)
    np.savez(path, image=np.zeros(3))
    with pytest.raises(CalibrationFileError, match=r"/c\.npz: "):
        Calibration.load(path)
    np.savez(path, header=np.array('{"format": "pyquant calibration", "version": 1}'))
    with pytest.raises(CalibrationFileError, match=r"/c\.npz: .*\b1\b"):
        Calibration.load(path)
    path.write_bytes(good)
    with np.load(path) as arrays:
        parts = dict(arrays)
    for name in ("whole", "channel_abs_max", "rows"):
        np.savez(path, **{**parts, name: parts[name][:-1]})
        with pytest.raises(CalibrationFileError, match=r"/c\.npz: .*channels of '[xbf]'"):
            Calibration.load(path)
    with pytest.raises(CalibrationFileError, match=r"/none\.npz: "):
        quantized(source, tmp_path / "out", calibration=tmp_path / "none.npz")
    assert not (tmp_path / "out").exists()


def test_statistics_of_different_models_are_not_mixed(tmp_path: Path, source: Path) -> None:
    ours = calibrate(source, data_loader=BATCHES[:2])
    other_net = programs.conv_net()
    other_net.parameters["first.w"][0, 0, 0, 0] += np.float32(1)
    other = calibrate(other_net.save(tmp_path / "other"), data_loader=BATCHES[:2])
    with pytest.raises(CalibrationFileError, match=r"^merge: .*SHA-256"):
        Calibration.merge([ours, other])
    with pytest.raises(CalibrationFileError, match=r"^calibration: .*SHA-256"):
        quantized(source, tmp_path / "out", calibration=other)
    fewer = calibrate(source, data_loader=BATCHES[:2], skip_tensor_list=["b"])
    with pytest.raises(CalibrationFileError, match=r"^merge: .*'b'.* 0 "):
        Calibration.merge([ours, fewer])
    with pytest.raises(SettingError, match=r"^merge: "):
        Calibration.merge([])
    with pytest.raises(CalibrationDataError, match=r"^calibration: .*data_loader"):
        quantized(source, tmp_path / "out", calibration=ours, data_loader=BATCHES)


def test_where_a_model_is_and_how_it_was_exported_is_all_one(tmp_path: Path, source: Path) -> None:
    moved = programs.conv_net()
    moved.block.ops[2].attrs.add(name="op_callstack", type=5, strings=["File x.py, line 3"])
    elsewhere = moved.save(tmp_path / "elsewhere", "other.pdmodel", None)
    merged = Calibration.merge(
        [calibrate(path, data_loader=BATCHES[:2]) for path in (source, elsewhere)]
    )
    assert merged.batches == 4


class StoppedError(Exception):
    pass


def stopping_after(batches: int) -> Iterator[Any]:
    yield from BATCHES[:batches]
    raise StoppedError


def test_a_checkpoint_goes_on_where_it_was(tmp_path: Path, source: Path) -> None:
    path = tmp_path / "state" / "c.npz"
    expected = quantized(source, tmp_path / "whole", data_loader=BATCHES)
    for batches in (5, 5, 9, 11):
        with pytest.raises(StoppedError):
            calibrate(
                source, data_loader=stopping_after(batches), checkpoint=path, checkpoint_every=2
            )
        assert Calibration.load(path).batches == batches // 2 * 2
    resumed = calibrate(source, data_loader=iter(BATCHES), checkpoint=path)
    assert resumed.batches == 13
    assert quantized(source, tmp_path / "out", calibration=path) == expected
    again = quantized(source, tmp_path / "again", data_loader=BATCHES, checkpoint=path)
    assert again == expected


def test_a_checkpoint_keeps_the_moments_by_which_weights_are_rounded(
    tmp_path: Path, source: Path
) -> None:
    """Files that a killed process left of other batches are not taken."""
    path = tmp_path / "state" / "c.npz"
    moments = path.with_name("c.npz.moments")
    options = {"round_type": "adaround", "checkpoint": path, "checkpoint_every": 2}
    expected = quantized(source, tmp_path / "whole", data_loader=BATCHES, round_type="adaround")
    for batches in (5, 9):
        with pytest.raises(StoppedError):
            quantized(source, tmp_path / "out", data_loader=stopping_after(batches), **options)
        kept = {file.name.partition("-")[0] for file in moments.iterdir()}
        assert kept == {str(batches // 2 * 2)}
        shutil.copy(moments / f"{batches - 1}-0.npy", moments / f"{batches + 1}-0.npy")
    assert quantized(source, tmp_path / "out", data_loader=BATCHES, **options) == expected
    assert quantized(source, tmp_path / "again", data_loader=BATCHES, **options) == expected
    np.save(moments / "13-0.npy", np.zeros((1, 2, 2)))
    with pytest.raises(CalibrationFileError, match=r"/13-0\.npy: .*adaround.*\[1, 2, 2\].*Remove"):
        quantized(source, tmp_path / "again", data_loader=BATCHES, **options)
    shutil.rmtree(moments)
    with pytest.raises(CalibrationFileError, match=r"/13-0\.npy: .*No such file.*Remove"):
        quantized(source, tmp_path / "again", data_loader=BATCHES, **options)


def test_a_checkpoint_of_other_data_is_refused(tmp_path: Path, source: Path) -> None:
    path = tmp_path / "c.npz"
    done = calibrate(source, data_loader=BATCHES[:4], checkpoint=path)
    before = path.read_bytes()
    for batches in (BATCHES[1:], BATCHES[:3], [batch[:2] for batch in BATCHES]):
        with pytest.raises(CalibrationFileError, match=r"/c\.npz: .*\b4 batch"):
            calibrate(source, data_loader=batches, checkpoint=path)
    with pytest.raises(CalibrationFileError, match=r"/c\.npz: .*'b'"):
        calibrate(source, data_loader=BATCHES, checkpoint=path, skip_tensor_list=["b"])
    assert path.read_bytes() == before
    Calibration.merge([done, done]).save(path)
    with pytest.raises(CalibrationFileError, match=r"/c\.npz: .*merged"):
        calibrate(source, data_loader=BATCHES, checkpoint=path)
    with pytest.raises(SettingError, match=r"^checkpoint_every: 0"):
        calibrate(source, data_loader=BATCHES, checkpoint=path, checkpoint_every=0)


@pytest.mark.usefixtures("heeds_ctrl_c")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_keeps_the_batch_under_way(
    tmp_path: Path, source: Path, number: signal.Signals
) -> None:
    path = tmp_path / "c.npz"

    def interrupted() -> Iterator[Any]:
        yield from BATCHES[:3]
        os.kill(os.getpid(), number)
        yield from BATCHES[3:]

    with pytest.raises(CalibrationInterrupted, match=r"\b4 batch.*/c\.npz"):
        calibrate(source, data_loader=interrupted(), checkpoint=path)
    assert Calibration.load(path).batches == 4
    calibrate(source, data_loader=BATCHES, checkpoint=path)
    expected = quantized(source, tmp_path / "whole", data_loader=BATCHES)
    assert quantized(source, tmp_path / "out", calibration=path) == expected
    if number == signal.SIGINT:
        with pytest.raises(KeyboardInterrupt):  # without a checkpoint, at once
            calibrate(source, data_loader=interrupted())
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_it_runs_on_another_thread(source: Path, tmp_path: Path) -> None:
    done = []
    path = tmp_path / "c.npz"
    thread = threading.Thread(
        target=lambda: done.append(calibrate(source, data_loader=BATCHES, checkpoint=path))
    )
    thread.start()
    thread.join()
    assert done[0].batches == 13


def test_two_calls_with_one_checkpoint(tmp_path: Path, source: Path) -> None:
    """The second one begins and ends, or is stopped, while the first one runs."""
    expected = quantized(source, tmp_path / "whole", data_loader=BATCHES)
    path, options = tmp_path / "c.npz", {"checkpoint_every": 1}
    for first, number in enumerate((2, 6)):

        def beside(number: int = number) -> Iterator[Any]:
            yield from BATCHES[:number]
            with pytest.raises(StoppedError):
                calibrate(source, data_loader=stopping_after(9), checkpoint=path, **options)
            yield from BATCHES[number:]

        out = tmp_path / str(first)
        assert quantized(source, out, data_loader=beside, checkpoint=path, **options) == expected
        assert Calibration.load(path).batches == len(BATCHES)
        path.unlink()


KILLED = """
import sys, time
import numpy as np
import pyquant

def batches():
    for number, batch in enumerate(np.load(sys.argv[2])):
        print(number, flush=True)
        time.sleep(0.002)
        yield batch

pyquant.quant_post_static(
    None, sys.argv[1], sys.argv[3], data_loader=batches(), algo="mse",
    checkpoint=sys.argv[4], checkpoint_every=1,
)
"""


def test_killed_at_any_moment_it_ends_in_the_same_model(tmp_path: Path, source: Path) -> None:
    data = tmp_path / "data.npy"
    batches = np.stack([BATCHES[number % 13] * np.float32(1 + number) for number in range(40)])
    np.save(data, batches)
    expected = quantized(source, tmp_path / "whole", "mse", data_loader=list(batches))
    chooser = random.Random(0)
    checkpoint = tmp_path / "state" / "c.npz"
    command = [sys.executable, "-c", KILLED, source, data, tmp_path / "out", checkpoint]
    reached = 0
    for _ in range(3):
        child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert child.stdout is not None
        for _ in range(min(39, reached + chooser.randint(1, 12))):
            child.stdout.readline()
        child.kill()
        child.communicate()
        reached = Calibration.load(checkpoint).batches if checkpoint.exists() else 0
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert model_bytes(tmp_path / "out") == expected
    assert [file.name for file in checkpoint.parent.iterdir()] == ["c.npz"]


def statistics_with(
    source: Path, names: list[str], optimization: Optimization
) -> tuple[dict[str, Any], Forward]:
    statistics: dict[str, Any] = {name: ActivationHistogram() for name in names}
    forward = Forward(pyquant.load_model(source), names)
    while forward.optimization is not optimization:
        forward.weaken()
    for number, batch in enumerate(BATCHES[:2]):
        forward.run({"x": batch}, number, statistics)
    return statistics, forward


@pytest.mark.parametrize("channels", [16, 20])
def test_every_optimization_sees_the_same(tmp_path: Path, channels: int) -> None:
    """Blocks of channels, padded or not, and dimensions in another order are read correctly."""
    net = programs.ProgramBuilder()
    x = net.feed("x", [-1, 3, 8, 8])
    dims = [-1, channels, 8, 8]
    w = net.parameter("w", programs.random((channels, 3, 3, 3)))
    a = net.op("conv2d", {"Input": x, "Filter": w}, ("Output", "a"), dims, programs.CONV)
    b = net.op("relu", {"X": a}, ("Out", "b"), dims)
    turned = [-1, 8, channels, 8]
    c = net.op("transpose2", {"X": b}, ("Out", "c"), turned, {"axis": [0, 2, 1, 3]})
    v = net.parameter("v", programs.random((16, 8, 3, 3)))
    last = [-1, 16, channels, 8]
    d = net.op("conv2d", {"Input": c, "Filter": v}, ("Output", "d"), last, programs.CONV)
    net.fetch(net.op("relu", {"X": d}, ("Out", "e"), last))
    source = net.save(tmp_path / "in")
    expected, _ = statistics_with(source, ["x", "b", "c", "e"], Optimization.NONE)
    for optimization in (Optimization.FUSED, Optimization.UNFUSED):
        seen, forward = statistics_with(source, ["x", "b", "c", "e"], optimization)
        assert forward.optimization is optimization
        for name, statistic in expected.items():
            assert (seen[name].values, seen[name].samples) == (statistic.values, statistic.samples)
            assert seen[name].zeros == pytest.approx(statistic.zeros, abs=2)
            for field in ("abs_max", "mean_abs_max", "minimum", "maximum"):
                value = getattr(statistic, field)
                assert getattr(seen[name], field) == pytest.approx(value, rel=1e-5)
            difference = np.cumsum(seen[name].counts.astype(int) - statistic.counts.astype(int))
            assert np.abs(difference).max() < 0.01 * statistic.values


def test_what_fusion_hides_is_seen_all_the_same(source: Path) -> None:
    net = pyquant.load_model(source)
    written = {name for op in net.ops() for name in op.writes()}
    names = sorted(written - {"fetch"})
    expected, _ = statistics_with(source, names, Optimization.NONE)
    seen, forward = statistics_with(source, names, Optimization.FUSED)
    assert forward.optimization is Optimization.UNFUSED
    for name, statistic in expected.items():
        assert seen[name].abs_max == pytest.approx(statistic.abs_max, rel=1e-5)
        assert seen[name].values == statistic.values


def test_a_predictor_goes_with_its_forward(source: Path) -> None:
    _, forward = statistics_with(source, ["b"], Optimization.FUSED)
    left = weakref.ref(forward)
    del forward
    gc.collect()
    assert left() is None


def test_nan_of_paddles_fusion_is_none_of_the_models(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Paddle replaces the sigmoid, which it has fused with the fc before, by the sqrt.

    Usually pyquant keeps apart what Paddle fuses wrongly; here it does not know.
    """
    monkeypatch.setattr(predictor, "kept_apart", lambda model: model)
    net = programs.Net([4, 8, 16]).matmul(8, trans_x=False, trans_y=False)
    net.constant("elementwise_add", np.arange(8) - 4).act("sigmoid").act("sqrt")
    roots = net.last
    source = net.matmul(4, trans_x=False, trans_y=False).end().save(tmp_path / "in")
    data = [programs.random((4, 8, 16), seed) for seed in (1, 2, 3)]
    fused = predict(source / "m.pdmodel", source / "m.pdiparams", {"x": data[0]}, "float")
    assert np.isnan(fused[0]).any()
    calibration = calibrate(source, data_loader=data)
    calibration.save(tmp_path / "c.npz")
    expected = math.sqrt(float(max(_sigmoid(source, batch).max() for batch in data)))
    for number, given in enumerate(({"data_loader": data}, {"calibration": tmp_path / "c.npz"})):
        result = quant_post_static(None, source, tmp_path / str(number), algo="abs_max", **given)
        assert result.thresholds()[roots] == pytest.approx(expected, rel=1e-5)
        assert any("NaN" in note and f"'{roots}'" in note for note in result.notes)
    other = {"data_loader": data, "skip_tensor_list": [roots]}
    result = quant_post_static(None, source, tmp_path / "other", **other)
    assert not any("NaN" in note for note in result.notes)


def _sigmoid(source: Path, batch: Any) -> Any:
    parameters = pyquant.load_model(source).parameters
    return 1 / (1 + np.exp(-(batch @ parameters["w1"] + parameters["c2"])))


def test_an_activation_that_no_shard_saw_is_named(tmp_path: Path, source: Path) -> None:
    calibration = calibrate(source, data_loader=BATCHES[:1])
    calibration.statistics["b"] = ActivationHistogram()
    with pytest.raises(ActivationError, match=r"'b'.*\b1 batch.*skip_tensor_list"):
        quantized(source, tmp_path / "out", calibration=calibration)


def test_files_are_data(tmp_path: Path, source: Path) -> None:
    directory = tmp_path / "data"
    directory.mkdir()
    for number, batch in enumerate(BATCHES[:3]):
        np.savez(directory / f"{number}.npz", x=batch)
    np.save(tmp_path / "all.npy", np.concatenate(BATCHES[:3]))
    expected = quantized(source, tmp_path / "1", data_loader=BATCHES[:3])
    for number, given in enumerate((directory, str(directory), tmp_path / "all.npy")):
        out = tmp_path / f"out{number}"
        assert quantized(source, out, data_loader=given, batch_size=3) == expected


def test_kernels_are_the_same_on_paddles_threads() -> None:
    import paddle

    values = programs.random((5, 70_001), 3)
    alone = [pyquant.kernels.histogram(values, 512, 0.01, num_threads=n) for n in (1, 2, 7)]
    assert not pyquant.kernels.join_openmp(Path("no such library"))
    library = Path(paddle.__file__).parent / "libs" / "libiomp5.so"
    assert pyquant.kernels.join_openmp(library) == library.exists()
    joined = [pyquant.kernels.histogram(values, 512, 0.01, num_threads=n) for n in (1, 2, 7, None)]
    pyquant.kernels.leave_openmp()
    left = pyquant.kernels.histogram(values, 512, 0.01, num_threads=2)
    for counts in [*alone, *joined, left]:
        np.testing.assert_array_equal(counts, alone[0])


def test_only_ray_is_an_engine(tmp_path: Path, source: Path) -> None:
    with pytest.raises(SettingError, match=r"^engine: 'dask'"):
        quantized(source, tmp_path / "out", data_loader=BATCHES, engine="dask")


LAUNCHED = """
import os
import sys

import pyquant

rank, ranks = int(os.environ["PADDLE_TRAINER_ID"]), int(os.environ["PADDLE_TRAINERS_NUM"])
pyquant.calibrate(
    sys.argv[1],
    sample_generator=sys.argv[2],
    batch_size=3,
    shard=(rank, ranks),
    checkpoint=f"{sys.argv[3]}/{rank}.npz",
)
"""


def test_paddles_launcher_and_the_command_line(tmp_path: Path, source: Path) -> None:
    """As in docs/many-machines.md."""
    data, shards, script = tmp_path / "data.npy", tmp_path / "shards", tmp_path / "shard.py"
    np.save(data, np.concatenate(BATCHES))
    script.write_text(LAUNCHED)
    launch = [sys.executable, "-m", "paddle.distributed.launch", "--nproc_per_node", "2"]
    command = [*launch, "--log_dir", tmp_path / "log", script, source, data, shards]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    for shard in ("0/2", "1/2"):
        own = [str(source), "--data", str(data), "--batch-size", "3", "--shard", shard]
        own.append("--no-isolate")
        assert (
            cli.main(["calibrate", "--no-isolate", *own, "-o", str(tmp_path / f"{shard[0]}.npz")])
            == 0
        )
        launched = Calibration.load(shards / f"{shard[0]}.npz")
        np.testing.assert_array_equal(
            launched.statistics["b"].counts,
            Calibration.load(tmp_path / f"{shard[0]}.npz").statistics["b"].counts,
        )
    merged = str(tmp_path / "all.npz")
    assert cli.main(["merge", str(shards / "1.npz"), str(shards / "0.npz"), "-o", merged]) == 0
    out = tmp_path / "out"
    arguments = [str(source), "--calibration", merged, "--algo", "KL", "-o", str(out)]
    assert cli.main(["static", "--no-isolate", *arguments]) == 0
    assert model_bytes(out) == quantized(source, tmp_path / "whole", data_loader=BATCHES)


def test_bad_options_are_named(source: Path, tmp_path: Path, capsys: Any) -> None:
    data = str(tmp_path / "data.npy")
    np.save(data, BATCHES[0])
    output = ["-o", str(tmp_path / "c.npz")]
    for shard in ("2/2", "x/2", "1"):
        with pytest.raises(SystemExit):
            cli.main(["calibrate", str(source), "--data", data, *output, "--shard", shard])
        assert f"--shard: {shard}: " in capsys.readouterr().err
    with pytest.raises(SettingError, match=r"^shard: \(2, 2\)"):
        calibrate(source, data_loader=BATCHES, shard=(2, 2))
    with pytest.raises(SystemExit):
        cli.main(["static", str(source), *output])
    assert "--data --calibration" in capsys.readouterr().err
    assert cli.main(["merge", data, *output]) == 1
    assert f"{data}: " in capsys.readouterr().err
    assert not (tmp_path / "c.npz").exists()


def test_how_many_batches_there_are_is_known(tmp_path: Path) -> None:
    np.save(tmp_path / "1.npy", np.zeros((7, 2)))
    np.savez(tmp_path / "2.npz", x=np.zeros((4, 2)), y=np.zeros((4, 3)))
    np.savez_compressed(tmp_path / "3.npz", np.zeros((2, 2)))
    for given, shard, expected in [
        (tmp_path, None, 5),
        (tmp_path / "1.npy", (0, 2), 2),
        (tmp_path / "1.npy", (1, 2), 1),
        (BATCHES, None, 10),
        (iter(BATCHES), None, 10),
    ]:
        data = CalibrationData({"data_loader": given}, 3, 10, shard)
        assert data.batches() == expected
    assert CalibrationData({"data_loader": iter(BATCHES)}, 3, None).batches() is None
