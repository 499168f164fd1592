"""The values that options may have; the tests compare them with those of pyquant's functions.

They stand here once more since those functions come with Paddle.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable

ACTIVATION_OP_TYPES = (
    *("conv2d", "depthwise_conv2d", "conv2d_transpose", "mul", "matmul", "matmul_v2"),
)
WEIGHT_ONLY_OP_TYPES = (
    *ACTIVATION_OP_TYPES,
    *("lookup_table_v2", "lookup_table", "rnn", "lstm", "gru", "fc", "fusion_lstm", "fusion_gru"),
    *("conv3d", "conv3d_transpose", "depthwise_conv2d_transpose", "deformable_conv", "other"),
)
ALGORITHMS = ("abs_max", "KL", "hist", "mse", "emd", "avg", "auto")
DEPLOY_BACKENDS = ("OneDNN", "MKLDNN", "QDQ", "TensorRT", "ARM", "ONNX", "OpenVINO")
PROCESSORS = ("any", "vnni")
ROUND_TYPES = ("round", "adaround")
WEIGHT_QUANTIZE_TYPES = ("channel_wise_abs_max", "abs_max")
DYNAMIC_QUANTIZE_TYPES = (*WEIGHT_QUANTIZE_TYPES, "mse")
WEIGHT_BITS = ("4", "8", "16")
GROUP_SIZES = ("32", "64", "128", "256")
LAYOUTS, CHANNELS = ("CHW", "HWC"), ("RGB", "BGR")


def one_of(choices: Iterable[str]) -> Callable[[str], str]:
    """Return the type of an option that takes one of ``choices``, in any case."""
    known = {choice.casefold(): choice for choice in choices}

    def chosen(text: str) -> str:
        try:
            return known[text.casefold()]
        except KeyError:
            raise argparse.ArgumentTypeError(
                f"{text!r} is not possible; choose among {', '.join(known.values())}"
            ) from None

    return chosen
