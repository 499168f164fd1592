"""Accuracy control: as many ops in int8 as the metric allows."""

from __future__ import annotations

import re
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import numpy as np
import programs
import pytest
from processors import deployed
from programs import CONV, Net
from static_runs import model_bytes, quantized

from pyquant import SettingError, calibrate, quant_post_static

IMAGES = programs.random((8, 4, 10, 10), 3)


def spoiled_net(directory: Path) -> Path:
    """Three convolutions; the second one reads a channel of large values and hardly weighs it."""
    net = Net([8, 4, 10, 10]).conv(8).act("relu")
    net.parameters["w1"][0] *= np.float32(3000)
    net.conv(8, {**CONV, "paddings": [0, 0]})
    net.parameters["w2"][:, 0] *= np.float32(1e-6)
    net.act("tanh").conv(8)
    return net.end().save(directory / "float")


def run(predictor: Any) -> Any:
    predictor.get_input_handle(predictor.get_input_names()[0]).copy_from_cpu(IMAGES)
    predictor.run()
    return predictor.get_output_handle(predictor.get_output_names()[0]).copy_to_cpu()


class Closeness:
    """A metric: 1 minus the relative error to the first model that it sees, the float one."""

    def __init__(self) -> None:
        self.expected: Any = None
        self.calls = 0

    def __call__(self, predictor: Any) -> float:
        output = run(predictor)
        self.calls += 1
        if self.expected is None:
            self.expected = output
        error = np.sqrt(np.mean((output - self.expected) ** 2) / np.mean(self.expected**2))
        return 1 - float(error)


def controlled(directory: Path, max_drop: float, backend: str) -> tuple[Any, Closeness]:
    metric = Closeness()
    spoiled_net(directory)
    result = quantized(
        directory,
        [IMAGES],
        algo="abs_max",
        **deployed(backend),
        equalize=False,  # equalization would mend what is spoiled
        eval_function=metric,
        max_drop=max_drop,
    )
    return result, metric


@pytest.mark.parametrize("backend", ["QDQ", "OneDNN"])
def test_the_worst_op_is_kept(tmp_path: Path, backend: str) -> None:
    everything, metric = controlled(tmp_path / "1", 10.0, backend)
    assert (everything.kept_float, metric.calls) == ([], 2)
    result, metric = controlled(tmp_path / "2", 0.05, backend)
    (kept,) = result.kept_float
    assert kept.name == "t3"
    assert kept.reason.startswith("accuracy control")
    assert metric.calls == 3
    (note,) = (note for note in result.notes if note.startswith("accuracy control"))
    assert " 1 op(s) " in note
    assert "max_drop" not in note
    assert len(result.thresholds()) == 2


def test_no_drop_at_all_keeps_every_op(tmp_path: Path) -> None:
    result, metric = controlled(tmp_path, 0.0, None)
    assert len(result.kept_float) == 3
    assert metric.calls <= 5
    assert " 3 op(s) " in str(result)


def test_what_cannot_be_met_is_told(tmp_path: Path) -> None:
    """Such as by a metric that falls for every model after the float one."""
    spoiled_net(tmp_path)
    metrics = chain([1.0], repeat(0.25))
    result = quantized(tmp_path, [IMAGES], max_drop=0.5, eval_function=lambda _: next(metrics))
    assert len(result.kept_float) == 3
    (note,) = (note for note in result.notes if note.startswith("accuracy control"))
    assert re.search(r"1\.0.* 0\.25.* 3 op\(s\) .*0\.25.*max_drop", note)
    assert note in str(result)


def test_bad_arguments(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=r"^max_drop: -1"):
        controlled(tmp_path, -1, None)


@pytest.mark.parametrize("backend", ["QDQ", "OneDNN"])
def test_a_saved_calibration_will_do(tmp_path: Path, backend: str) -> None:
    source = spoiled_net(tmp_path)
    options: dict[str, Any] = {**deployed(backend), "equalize": False, "algo": "abs_max"}
    kept = []
    for given in (
        {"data_loader": [IMAGES]},
        {"calibration": calibrate(source, data_loader=[IMAGES], **deployed(backend))},
    ):
        options |= {"eval_function": Closeness(), "max_drop": 0.05}
        result = quant_post_static(None, source, tmp_path / "out", **given, **options)
        kept.append((result.kept_float, model_bytes(tmp_path / "out")))
    assert kept[0] == kept[1]
    assert len(kept[0][0]) == 1


@pytest.mark.parametrize("backend", ["QDQ", "OneDNN"])
def test_a_weight_of_two_ops(tmp_path: Path, backend: str) -> None:
    """The earlier op reads the weight first, whichever of them is worse."""
    net = Net([8, 4, 10, 10]).conv(4).act("relu")
    weight = {"Input": net.last, "Filter": "w1"}
    net.then("conv2d", weight, "Output", CONV).act("tanh").end()
    net.save(tmp_path / "float")
    metrics = iter([1.0, 0.0, 1.0, 1.0])

    def metric(predictor: Any) -> float:
        run(predictor)
        return next(metrics)

    result = quantized(tmp_path, [IMAGES], **deployed(backend), eval_function=metric)
    assert len(result.kept_float) == 1


@pytest.mark.parametrize("value", [float("nan"), float("inf"), None, "good"])
def test_a_metric_is_a_finite_number(tmp_path: Path, value: Any) -> None:
    spoiled_net(tmp_path)
    with pytest.raises(SettingError, match=f"^eval_function: .*{value!r}"):
        quantized(tmp_path, [IMAGES], eval_function=lambda predictor: value)
    assert not (tmp_path / "int8").exists()
