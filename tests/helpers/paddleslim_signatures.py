"""The signatures of PaddleSlim 2.6, by which its users call pyquant.

From the wheel of paddleslim 2.6.0, paddleslim/quant/quanter.py, read by Python's ``ast``:

    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef):
            print(node.name, [argument.arg for argument in node.args.args])
"""

from __future__ import annotations

POSITIONAL = {
    "quant_post_static": (
        *("executor", "model_dir", "quantize_model_path", "batch_generator", "sample_generator"),
        *("data_loader", "model_filename", "params_filename", "save_model_filename"),
        *("save_params_filename", "batch_size", "batch_nums", "scope", "algo", "round_type"),
        *("hist_percent", "bias_correction", "quantizable_op_type", "is_full_quantize"),
        *("weight_bits", "activation_bits", "activation_quantize_type", "weight_quantize_type"),
        *("optimize_model", "onnx_format", "skip_tensor_list", "deploy_backend"),
    ),
    "quant_post_dynamic": (
        *("model_dir", "save_model_dir", "model_filename", "params_filename"),
        *("save_model_filename", "save_params_filename", "quantizable_op_type", "weight_bits"),
        *("generate_test_model",),
    ),
}
ALIASES = {"quant_post": "quant_post_static", "quant_post_only_weight": "quant_post_dynamic"}
# What paddleslim.quant exports besides.
OTHERS = (
    *("convert", "export_quant_infermodel", "quant_aware", "quant_aware_with_infermodel"),
    *("quant_embedding", "quant_post_hpo", "quant_recon_static"),
)
