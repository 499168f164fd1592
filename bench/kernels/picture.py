"""The results as a picture: the roofline, and time against size."""

from __future__ import annotations

from pathlib import Path
from statistics import median
from typing import Any

READING = {
    "abs_max": "o",
    "min_max": "s",
    "channel_abs_max": "^",
    "channel_sums": "<",
    "sample_maxima": "X",
    "histogram": "D",
    "observe": "P",
}
WRITING = {
    "quantize": "v",
    "dequantize": ">",
    "sample_rows": "*",
}


def draw(results: dict[str, Any], path: Path) -> None:
    """Write the picture of a result to ``path``, in the format of its suffix: .png or .svg.

    Raises:
        ImportError: matplotlib is not installed.
    """
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    figure, (roofline, times) = pyplot.subplots(1, 2, figsize=(14, 6), layout="constrained")
    _draw_roofline(roofline, results["rows"])
    _draw_times(times, results["sizes"])
    machine = results["machine"]
    figure.suptitle(
        f"pyquant {machine['pyquant']}, {machine['instruction_set']}, {machine['processor']}, "
        f"{machine['cores']} cores, Python {machine['python']}, numpy {machine['numpy']}"
    )
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def _draw_roofline(axes: Any, rows: list[dict[str, Any]]) -> None:
    """Draw values per second against bytes per value, on one thread, under the memory's roof."""
    moving = [row for row in rows if row["bytes"] and "limit 1" in row["seconds"]]
    ends = [1.5, 9]
    for name, kernels, style in (("reading", READING, "-"), ("copying", WRITING, ":")):
        bandwidth = median(
            row["bytes"] / row["seconds"]["limit 1"] / 1e9
            for row in moving
            if row["case"].split()[0] in kernels
        )
        axes.plot(
            ends,
            [bandwidth / size for size in ends],
            color="black",
            linestyle=style,
            label=f"{name} memory, {bandwidth:.0f} GB/s",
        )
    for number, (kernel, marker) in enumerate({**READING, **WRITING}.items()):
        own = [row for row in moving if row["case"].split()[0] == kernel]
        axes.scatter(
            # Moved apart where they would cover each other.
            [row["bytes"] / row["values"] * (1 + 0.02 * (number - 3)) for row in own],
            [row["values"] / row["seconds"]["pyquant 1"] / 1e9 for row in own],
            marker=marker,
            alpha=0.7,
            label=kernel,
        )
    axes.set(
        xscale="log",
        yscale="log",
        xlabel="bytes read and written per value",
        ylabel="G values/s, one thread",
        title="Roofline",
    )
    axes.set_xticks([2, 3, 4, 5, 6], ["2", "3", "4", "5", "6"])
    axes.set_xticks([], minor=True)
    axes.grid(alpha=0.3, which="both")
    axes.legend(fontsize=8)


def _draw_times(axes: Any, rows: list[dict[str, Any]]) -> None:
    """Draw the time of a call against the number of values, for pyquant and numpy."""
    for number, kernel in enumerate(dict.fromkeys(row["case"] for row in rows)):
        own = [row for row in rows if row["case"] == kernel]
        for name, style in (("pyquant 1", "-"), ("numpy", "--")):
            axes.plot(
                [row["values"] for row in own],
                [row["seconds"][name] * 1e3 for row in own],
                linestyle=style,
                marker=".",
                color=f"C{number}",
                label=f"{kernel}, {name.replace(' 1', '')}",
            )
    axes.set(
        xscale="log",
        yscale="log",
        xlabel="values (fp32)",
        ylabel="ms per call, one thread",
        title="Time against size",
    )
    axes.grid(alpha=0.3, which="both")
    axes.legend(fontsize=8)
