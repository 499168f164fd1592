"""What pyquant writes beside a quantized model about it: pyquant.json."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from .errors import ModelFileError
from .inference_yml import FILENAME as PREPROCESSING
from .plain import plain
from .program.mapped_files import read_whole
from .program.model import RECORD, Model, read_program
from .program.output_files import OutputFiles
from .version import __version__

_MOST_BYTES = 1 << 28
_HASHED_BYTES = 1 << 16  # of each parameter: enough to tell trainings apart


def write_record(
    files: OutputFiles,
    program: Path,
    source: Model,
    target: str,
    settings: Mapping[str, Any],
    found: Mapping[str, Any],
) -> None:
    """Write the record of a quantized ``program``, together with its ``files``.

    Args:
        files: among which it appears.
        program: what was written.
        source: the model as it was read.
        target: what runs the result.
        settings: arguments by their names, as they were taken.
        found: what was quantized and measured.
    """
    import paddle

    record = {
        "pyquant": __version__,
        "paddle": paddle.__version__,
        "model": program.name,
        "target": target,
        "source": {
            "program": source.model_path.name,
            "parameters": None if source.params_path is None else source.params_path.name,
            "sha256": source_digest(source),
        },
        "settings": settings,
        **found,
    }
    with files.open(program.parent / RECORD) as stream:
        stream.write((json.dumps(plain(record), indent=2) + "\n").encode())


def copy_preprocessing(files: OutputFiles, source: Model, directory: Path) -> None:
    """Write the ``inference.yml`` that lies beside the source beside its result, too."""
    described = source.model_path.parent / PREPROCESSING
    if described.is_file() and described.resolve() != (directory / PREPROCESSING).resolve():
        try:
            content = read_whole(described, _MOST_BYTES)
        except OSError as error:
            raise ModelFileError(
                f"{described}: cannot be read ({error.strerror}). Make it readable, or remove it."
            ) from error
        with files.open(directory / PREPROCESSING) as stream:
            stream.write(content)


def read_record(program: Path) -> dict[str, Any] | None:
    """Return the record of a program; None if there is none, or if it is of another one or damaged.

    It may come from anywhere, so the kinds of values are checked that are shown.
    """
    try:
        record = json.loads(read_whole(program.parent / RECORD, _MOST_BYTES))
    except (OSError, ValueError, RecursionError):
        return None
    is_its = _fits(record, _KINDS) and record["model"] == program.name
    if is_its and record.get("verification") is not None:
        is_its = _fits(record["verification"], _KINDS_OF_CHECK)
    return record if is_its else None


def settings_of(record: Mapping[str, Any]) -> str:
    """Return the settings of a record in one line, but for those that say nothing."""
    told = {
        name: value
        for name, value in record["settings"].items()
        if value not in (None, []) and name != "quantizable_op_type"
    }
    return ", ".join(f"{name}={value!r}" for name, value in told.items())


_KINDS: dict[str, Any] = {
    **dict.fromkeys(("pyquant", "paddle", "model", "target"), str),
    "source": {"program": str, "sha256": str},
    "settings": {"skip_tensor_list": (list, type(None))},
}
_NUMBER = (int, float, type(None))  # None stands for NaN and infinity
_KINDS_OF_CHECK = dict.fromkeys(
    ("error_percent", "speedup", "int8_seconds", "float_seconds"), _NUMBER
)


def _fits(value: Any, kinds: Mapping[str, Any]) -> bool:
    """Return whether a value is a dict that has values of these kinds."""
    return isinstance(value, dict) and all(
        _fits(value.get(name), kind)
        if isinstance(kind, dict)
        else name in value and isinstance(value[name], kind)
        for name, kind in kinds.items()
    )


def source_digest(model: Model) -> str:
    """Return the SHA-256 of a program's file and of the first 64 KiB of each parameter.

    Raises ModelFileError if a file has changed, or is gone.
    """
    digest = hashlib.sha256(read_program(model.model_path))
    stored = model.parameters if model.origin is None else model.origin.parameters
    for name, array in sorted(stored.items()):
        digest.update(f"{name} {array.dtype} {array.shape}".encode())
        digest.update(array.reshape(-1)[: _HASHED_BYTES // array.itemsize].tobytes())
    model.refuse_changed_files()
    return digest.hexdigest()


def count_tensors(tensors: Iterable[Any]) -> dict[str, int]:
    """Count quantized tensors by kind and bits, as ``{"weights of 8 bits": 3}``."""
    return dict(Counter(f"{one.kind}s of {one.bits} bits" for one in tensors))
