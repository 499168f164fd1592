"""Several files that appear together or not at all."""

from __future__ import annotations

import errno
import os
import re
import resource
import tempfile
from pathlib import Path
from typing import Any

import programs
import pytest

from pyquant import OutputError, quant_post_static
from pyquant.program.output_files import OutputFiles, temporary_directory

BEFORE = {"a": b"old a", "c": b"old c"}


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    for name, content in BEFORE.items():
        (tmp_path / name).write_bytes(content)
    return tmp_path


@pytest.fixture(params=["hard links", "no hard links"])
def links(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    def link(*_: Any, **__: Any) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    if request.param == "no hard links":
        monkeypatch.setattr(os, "link", link)


def write(directory: Path, names: str, spoil: str = "", by: str = "removal") -> None:
    """Write files; the temporary one of ``spoil`` goes away, or a directory takes its place."""
    with OutputFiles(directory) as files:
        for name in names:
            with files.open(directory / name) as stream:
                stream.write(b"new " + name.encode())
        if spoil and by == "removal":
            next(directory.glob(f".{spoil}.*")).unlink()
        elif spoil:
            (directory / spoil).mkdir()


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir() if path.is_file()}


@pytest.mark.usefixtures("links")
@pytest.mark.parametrize("names", ["a", "abc"])
def test_files_replace_earlier_ones(directory: Path, names: str) -> None:
    write(directory, names)
    assert contents(directory) == BEFORE | {name: b"new " + name.encode() for name in names}


@pytest.mark.usefixtures("links")
@pytest.mark.parametrize("spoiled", ["a", "b", "c"])
def test_a_rename_that_fails_undoes_those_before(directory: Path, spoiled: str) -> None:
    with pytest.raises(OutputError, match=rf"/{spoiled}: .*Nothing was changed"):
        write(directory, "abc", spoiled)
    assert contents(directory) == BEFORE


def test_a_directory_that_takes_the_place_of_a_target(directory: Path) -> None:
    with pytest.raises(OutputError, match=r"/d: .*Nothing was changed"):
        write(directory, "abd", "d", by="a directory")
    assert contents(directory) == BEFORE


def test_a_link_is_put_back_as_a_link(directory: Path) -> None:
    (directory / "b").symlink_to("a")
    with pytest.raises(OutputError):
        write(directory, "bc", "c")
    assert os.readlink(directory / "b") == "a"


def test_the_message_tells_what_could_not_be_put_back(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when write permission is lost between two renames."""
    is_denied = False

    def denied(path: Path, target: Path) -> Path:
        nonlocal is_denied
        is_denied = is_denied or target == directory / "c"
        return deny() if is_denied else rename(path, target)

    def deny(*_: Any, **__: Any) -> Any:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    rename = Path.replace
    monkeypatch.setattr(Path, "replace", denied)
    monkeypatch.setattr(Path, "unlink", deny)
    with pytest.raises(OutputError, match="/c: ") as caught:
        write(directory, "abc")
    message = str(caught.value)
    assert "Nothing was changed" not in message
    assert re.search(rf"{directory}/b\b.*{directory}/a\b.*{directory}/\.a\.", message)
    found = contents(directory)
    assert BEFORE["a"] in [found[name] for name in found if str(directory / name) in message]
    assert all(str(directory / name) in message for name in found.keys() - BEFORE.keys())


def test_a_full_temporary_directory_is_named(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limits[1]))
    try:
        said = rf"^{tmp_path}: .*too large.* TMPDIR"
        with pytest.raises(OutputError, match=said), temporary_directory() as directory:
            (directory / "m").write_bytes(bytes(4000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("needs", ["a computed parameter", "an int8 run"])
def test_no_temporary_directory(tmp_path: Path, monkeypatch: Any, needs: str) -> None:
    net = programs.Net([2, 3, 8, 8]).conv(4)
    options: dict[str, Any] = {}
    if needs == "an int8 run":
        options["eval_function"] = lambda _: 1.0
    else:
        offsets = net.parameter("offsets", programs.random((4, 1, 1)))
        doubled = net.op("scale", {"X": offsets}, ("Out", "doubled"), [4, 1, 1], {"scale": 2.0})
        net.then("elementwise_add", {"X": net.last, "Y": doubled}, "Out", {"axis": -1})
    source = net.end().save(tmp_path / "in")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))
    with pytest.raises(OutputError, match=rf"^{tmp_path}/none/\w+: .*No such file.* TMPDIR"):
        quant_post_static(
            None, source, tmp_path / "out", data_loader=[programs.random((2, 3, 8, 8))], **options
        )
    assert not (tmp_path / "out").exists()
