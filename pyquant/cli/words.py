"""The names that options have in Python, and on the command line."""

from __future__ import annotations

import re

PARAMETERS = {
    "model": "model_dir",
    "batches": "batch_nums",
    "op_types": "quantizable_op_type",
    "skip": "skip_tensor_list",
    "full_quantize": "is_full_quantize",
    "test_model": "generate_test_model",
    "lite": "lite_format",
    "eval": "eval_function",
    "same_scale": "same_scale_tensor_list",
}
"""Options that have another name in pyquant's functions, by their own."""

_OPTIONS = {
    **{name: f"--{option.replace('_', '-')}" for option, name in PARAMETERS.items()},
    "model_dir": "MODEL",
    "quantize_model_path": "--output",
    "save_model_dir": "--output",
    "sample_generator": "--data",
    "data_loader": "--data",
    "batch_generator": "--data",
    **{
        name: f"--{name.replace('_', '-')}"
        for name in (
            *("activation_bits", "batch_size", "bias_correction", "checkpoint_every"),
            *("deploy_backend", "group_size", "hist_percent", "max_drop", "max_error"),
            *("memory_limit", "model_filename", "params_filename", "plan_for", "round_type"),
            *(
                "save_model_filename",
                "save_params_filename",
                "scale_dict",
                "weight_bits",
                "weight_quantize_type",
            ),
        )
    },
}
# Words that are common in English as well; they are a parameter if a value follows.
_WITH_VALUE = ("algo", "equalize", "processors", "shard", "calibration", "checkpoint")
_SWITCHES = {
    "verify=False": "--no-verify",
    "equalize=True": "--equalize",
    "equalize=False": "--no-equalize",
    "optimize_model=False": "--no-optimize",
    "bias_correction=False": "--no-bias-correction",
    "is_full_quantize=True": "--full-quantize",
    "generate_test_model=True": "--test-model",
    "quant_post_dynamic": "pyquant dynamic",
    "quant_post_static": "pyquant static",
    "optimize_model": "--no-optimize",
}
_VALUE = r"=(?:'[^']*'|\w+)"
_NAMES = re.compile(
    r"(?<![\w'/.-])(?:"
    + "|".join(
        (
            *(rf"{re.escape(switch)}\b" for switch in _SWITCHES),
            *(rf"{name}\b(?:{_VALUE})?" for name in _OPTIONS),
            *(rf"{name}{_VALUE}" for name in _WITH_VALUE),
        )
    )
    + ")"
)


def in_cli_words(text: str) -> str:
    """Return a message with the names of options in the place of those of parameters."""
    return re.sub("--data(, --data)+", "--data", _NAMES.sub(_as_option, text))


def _as_option(match: re.Match[str]) -> str:
    found = match.group()
    if found in _SWITCHES:
        return _SWITCHES[found]
    name, has_value, value = found.partition("=")
    option = _OPTIONS.get(name, f"--{name}")
    return f"{option} {value.strip(chr(39))}" if has_value else option
