"""Names from files are shown without what moves a terminal's cursor, and cut if they are long."""

from __future__ import annotations

from pathlib import Path

import pytest
from programs import ProgramBuilder, conv_net, random

from pyquant import (
    FloatOp,
    ModelFileError,
    OutputError,
    QuantizationResult,
    SettingError,
    cli,
    load_model,
    quant_post_dynamic,
)
from pyquant.shown import LONGEST_NAME, shown

pytestmark = pytest.mark.any_isa

STRANGE = "\x1b[2J\rname\n\u202e"
ESCAPED = r"\x1b[2J\rname\n\u202e"


def strange_net(name: str) -> ProgramBuilder:
    net = conv_net()
    product = {"X": "y", "Y": net.parameter(name, random((10, 10)))}
    net.fetch(net.op("matmul_v2", product, ("Out", f"{name}.product"), [-1, 10]))
    return net


def test_what_does_not_print_is_escaped() -> None:
    assert shown(STRANGE) == ESCAPED
    assert shown("a\x07\nb", newlines=True) == "a\\x07\nb"
    assert shown("größe 图 '' \\x1b") == "größe 图 '' \\x1b"


def test_long_names_are_cut() -> None:
    name = "b" + "n" * 5000 + "e"
    text = shown(f"parameter '{name}' and 'w'")
    assert text.startswith("parameter 'bn")
    assert text.endswith("ne' and 'w'")
    assert len(text) < LONGEST_NAME + 50


@pytest.mark.parametrize("kind", [ModelFileError, SettingError, OutputError])
def test_errors_show_names_so(kind: type[Exception]) -> None:
    assert str(kind(f"'{STRANGE}': no")) == f"'{ESCAPED}': no"


def test_results_and_the_command_line_show_names_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = strange_net(STRANGE).save(tmp_path / "in")
    result = quant_post_dynamic(source, tmp_path / "out", skip_tensor_list=[STRANGE])
    assert f"'{ESCAPED}.product'" in str(result)
    assert "\x1b" not in str(result)
    assert cli.main(["inspect", str(source)]) == 0
    assert cli.main(["inspect", str(tmp_path / STRANGE)]) == 1
    printed = capsys.readouterr()
    assert r"matmul_v2 y \x1b[2J\rname" in printed.out
    assert ESCAPED in printed.err
    assert "\x1b" not in printed.out + printed.err


def test_a_parameter_of_a_long_name_is_named(tmp_path: Path) -> None:
    source = strange_net("a" * 5000).save(tmp_path)
    (source / "m.pdiparams").write_bytes((source / "m.pdiparams").read_bytes()[:100])
    with pytest.raises(ModelFileError, match=r"'a+\.\.\.a+' at byte") as caught:
        load_model(source)
    assert len(str(caught.value)) < 600 + len(str(tmp_path))


def test_ops_in_float_are_told_together() -> None:
    def kept(name: str, reason: str, error: float | None = None) -> FloatOp:
        return FloatOp("conv2d", name, reason, error=error)

    ops = [kept("a", "it errs", 0.105), kept("b", "it errs", 0.0925), kept("c", "it is long")]
    text = str(QuantizationResult(Path("m"), None, [], ops, 1, 1, {}))
    assert "float conv2d 'a' and 1 more: it errs by 9.25% to 10.50%\n" in text
    assert "float conv2d 'c': it is long\n" in text
