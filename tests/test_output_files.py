"""Several files that appear together or not at all."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import resource
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import programs
import pytest

from pyquant import (
    Calibration,
    OutputError,
    calibrate,
    load_model,
    quant_post_dynamic,
    quant_post_static,
    save_model,
)
from pyquant.errors import PyquantError
from pyquant.program.locks import locked
from pyquant.program.output_files import OutputFiles, end_killed_runs
from pyquant.program.temporary import TemporaryDirectory, temporary_directory

pytestmark = pytest.mark.any_isa

BEFORE = {"a": b"old a", "c": b"old c"}


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    for name, content in BEFORE.items():
        (tmp_path / name).write_bytes(content)
    return tmp_path


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


@pytest.mark.parametrize("names", ["a", "abc"])
def test_files_replace_earlier_ones(directory: Path, names: str) -> None:
    write(directory, names)
    assert contents(directory) == BEFORE | {name: b"new " + name.encode() for name in names}


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
    left = found.keys() - BEFORE.keys() - {".pyquant-lock"}  # which no process has locked
    assert all(str(directory / name) in message for name in left)


CALLS = ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "fcntl.flock")
PAIR = ("params", "program")  # in the order in which they are written


def write_pair(directory: Path, content: bytes, between: Any = int) -> None:
    """Write two files that belong together, in a directory below; call ``between`` two writes."""
    with OutputFiles(directory) as files:
        for name in PAIR:
            with files.open(directory / "in" / name) as stream:
                stream.write(content[:1])
                stream.flush()
                between()
                stream.write(content[1:])


def killed_at(directory: Path, call: int) -> bool:
    """Write a pair in a child that is killed at its ``call``-th system call; return whether it was.

    Python announces all but fsync and write (PEP 578).
    """
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    left = call

    def count(*_: Any) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)

    synchronize = os.fsync
    os.fsync = lambda *of: (count(), synchronize(*of))[1]  # type: ignore[func-returns-value]
    sys.addaudithook(lambda event, _: count() if event in CALLS else None)
    write_pair(directory, b"new", between=count)
    os._exit(0)


def pair_in(directory: Path) -> list[bytes | None]:
    return [content_of(directory / "in" / name) for name in PAIR]


def content_of(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


@pytest.mark.parametrize("before", ["a pair", "nothing"])
def test_killed_at_every_call_it_leaves_one_pair(tmp_path: Path, before: str) -> None:
    """No process finds a new file beside an old one, and the next call ends what was begun."""
    ended_as = set()
    for call in range(1000):
        directory = tmp_path / str(call)
        directory.mkdir()
        if before == "a pair":
            write_pair(directory, b"old")
        whole = pair_in(directory)
        was_killed = killed_at(directory, call)
        found = pair_in(directory)
        assert found[1] is None or found[0] == found[1]
        end_killed_runs(directory)
        found = pair_in(directory)
        assert found in (whole, [b"new", b"new"])
        ended_as.add(found[0])
        left = [path.name for path in directory.rglob("*") if path.name.startswith(".")]
        assert not left
        if not was_killed:
            break
    assert call > 20
    assert ended_as == {whole[0], b"new"}
    assert found == [b"new", b"new"]


def without_locks(*_: Any) -> None:
    """As flock, on a network's file system whose lock server does not run."""
    raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))


@pytest.mark.parametrize("locks", ["locks", "no locks"])
def test_several_processes_write_whole_pairs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, locks: str
) -> None:
    """Who finds the same program before and after finds the parameters that go with it."""
    if locks == "no locks":
        monkeypatch.setattr("fcntl.flock", without_locks)
    writers, rounds = 3, 25
    write_pair(tmp_path, b"first")
    children = []
    for writer in range(writers):
        child = os.fork()
        if not child:
            try:
                for number in range(rounds):
                    write_pair(tmp_path, f"{writer} {number}".encode())
            finally:
                os._exit(sys.exc_info()[0] is not None)
        children.append(child)
    seen = set()
    while children:
        before, found, after = pair_in(tmp_path)[1], *pair_in(tmp_path)
        if before is not None and before == after:
            assert found == before
            seen.add(found)
        ended, status = os.waitpid(children[-1], os.WNOHANG)
        assert status == 0
        if ended:
            children.pop()
    assert len(seen) > 3
    last = {f"{writer} {rounds - 1}".encode() for writer in range(writers)}
    found = pair_in(tmp_path)
    assert found[0] == found[1]
    assert found[0] in last
    assert sorted(path.name for path in (tmp_path / "in").iterdir()) == sorted(PAIR)
    assert not list(tmp_path.glob(".*"))


def test_a_run_that_another_process_ends_before_it_is_locked_begins_again(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = fcntl.flock

    def late(descriptor: Any, how: int) -> None:
        monkeypatch.setattr(fcntl, "flock", lock)
        end_killed_runs(directory)
        lock(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", late)
    with OutputFiles(directory) as files, files.open(directory / "a") as stream:
        stream.write(b"new a")
        end_killed_runs(directory)
        assert list(directory.glob(".pyquant.*"))  # the file by which a later call would end it
    assert contents(directory) == {**BEFORE, "a": b"new a"}


def test_a_lock_that_a_killed_process_left_is_named(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where there are no other locks. A single file needs none."""
    (directory / ".pyquant-lock").touch()
    write(directory, "ac")
    assert contents(directory) == {"a": b"new a", "c": b"new c"}
    monkeypatch.setattr("fcntl.flock", without_locks)
    monkeypatch.setattr("pyquant.program.locks._LONGEST", 0.1)
    (directory / ".pyquant-lock").touch()
    left = contents(directory)
    said = rf"^{directory}/\.pyquant-lock: .*killed.*Nothing was changed.*remove this file"
    with pytest.raises(OutputError, match=said):
        write(directory, "abc")
    assert contents(directory) == left
    write(directory, "b")
    (directory / ".pyquant-lock").unlink()
    write(directory, "cd")
    assert contents(directory) == {name: b"new " + name.encode() for name in "abcd"}


def test_what_fails_is_undone_before_another_process_may_write(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_locked = []

    def seen(path: Path, target: Path) -> Path:
        if path.suffix == ".old":
            with pytest.raises(BlockingIOError), locked(directory / ".pyquant-lock", waits=False):
                pass
            is_locked.append(target.name)
        return rename(path, target)

    rename = Path.replace
    monkeypatch.setattr(Path, "replace", seen)
    with pytest.raises(OutputError):
        write(directory, "abc", "c")
    assert sorted(is_locked) == ["a", "c"]


def stale_at(call: int, place: Path, use: Callable[[], object], for_good: bool) -> int:
    """Call ``use`` in a child whose ``call``-th system call fails, and the later ones ``for_good``.

    They fail as when the server has removed the directory, or goes away. Only those count that are
    about a file in ``place``. Return 1 for one of pyquant's errors, 2 for another one, 3 if there
    are fewer calls.
    """
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    left = call

    def count(event: str, of: tuple[Any, ...]) -> None:
        nonlocal left
        if event not in (*CALLS, "os.scandir", "os.listdir"):
            return
        if event == "fcntl.flock" or str(of[0]).startswith(str(place)):
            left -= 1
            if left == -1 or (for_good and left < 0):
                raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))

    code = 2
    try:
        sys.addaudithook(count)
        use()
        code = 3 if left >= 0 else 0
    except PyquantError:
        code = 1
    finally:
        os._exit(code)


@pytest.mark.parametrize("for_good", [False, True])
def test_a_stale_handle_at_any_call_is_a_typed_error(tmp_path: Path, for_good: bool) -> None:
    """No new file is beside an old one; what fails once leaves all as it was."""
    codes = list[int]()
    while 3 not in codes:
        directory = tmp_path / str(len(codes))
        directory.mkdir()
        write_pair(directory, b"old")
        write_new = partial(write_pair, directory, b"new")
        codes.append(stale_at(len(codes), directory, write_new, for_good))
        found = pair_in(directory)
        assert found[1] is None or found[0] == found[1]
        if not for_good:
            assert found == [b"old" if codes[-1] == 1 else b"new"] * 2
            end_killed_runs(directory)
            assert pair_in(directory) == found
    assert set(codes) == {0, 1, 3}
    assert codes.count(1) > 10


def test_a_source_whose_handle_is_stale_is_a_typed_error(tmp_path: Path) -> None:
    source, out = programs.conv_net().save(tmp_path / "in"), tmp_path / "out"
    (source / "inference.yml").write_text("Global: {}")
    quant_post_dynamic(source, out)
    quantize, codes = partial(quant_post_dynamic, source, out), list[int]()
    while 3 not in codes:
        codes.append(stale_at(len(codes), source, quantize, for_good=False))
    assert set(codes) == {0, 1, 3}
    assert codes.count(1) > 5


def test_a_run_that_lives_is_left_alone(directory: Path) -> None:
    with OutputFiles(directory) as files, files.open(directory / "a") as stream:
        stream.write(b"new a")
        stream.flush()
        end_killed_runs(directory)
        write(directory, "c")
    assert contents(directory) == {"a": b"new a", "c": b"new c"}


@pytest.mark.parametrize("place", ["../b", "/etc/b", "a/b/c", "", 7, "b\0"])
def test_a_journal_that_names_what_is_elsewhere_does_nothing(tmp_path: Path, place: Any) -> None:
    root = tmp_path / "root"
    root.mkdir()
    number = "0" * 32
    (tmp_path / "b").write_bytes(b"mine")
    (tmp_path / f".b.{number}").write_bytes(b"theirs")
    (root / f".pyquant.{number}").write_text(json.dumps([place]))
    end_killed_runs(root)
    assert (tmp_path / "b").read_bytes() == b"mine"
    assert not list(root.iterdir())


def test_a_model_is_read_once_its_killed_run_is_ended(tmp_path: Path, source: Path) -> None:
    """As if the process had been killed between two renames."""
    number, out = "1" * 32, tmp_path / "out"
    save_model(load_model(source), out, "m.pdmodel", "m.pdiparams")
    names = ["m.pdiparams", "m.pdmodel"]
    (out / "m.pdmodel").rename(out / f".m.pdmodel.{number}")
    (out / f".pyquant.{number}").write_text(json.dumps(names))
    load_model(out)
    assert sorted(path.name for path in out.iterdir()) == names


@contextmanager
def full_beyond(size: int) -> Iterator[None]:
    """Let no file grow beyond a size, as if the disk were full."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_full_temporary_directory_is_named(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    said = rf"^{tmp_path}: .*too large.* TMPDIR"
    with full_beyond(2000), pytest.raises(OutputError, match=said), temporary_directory() as at:
        (at / "m").write_bytes(bytes(4000))
    assert not list(tmp_path.iterdir())


def test_no_directory_takes_temporary_files(monkeypatch: Any) -> None:
    """As where all of them are on one full disk."""
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: ["/proc/none"])
    said = r"^TMPDIR: .*No usable temporary directory found in \['/proc/none'\]"
    with pytest.raises(OutputError, match=said), temporary_directory():
        pass


def test_what_a_killed_process_left_is_removed(tmp_path: Path, monkeypatch: Any) -> None:
    """But neither what a living one has, nor what is not pyquant's."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    child = os.fork()
    if not child:
        (TemporaryDirectory().path / "big").write_bytes(bytes(1000))
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    (left,) = tmp_path.iterdir()
    (tmp_path / "others").mkdir()
    (tmp_path / "pyquant-link").symlink_to(tmp_path / "others")
    with temporary_directory() as one, temporary_directory() as other:
        assert one.is_dir()
        assert other.is_dir()
        assert not left.exists()
    assert {path.name for path in tmp_path.iterdir()} == {"others", "pyquant-link"}


# numpy 1 leaves its ZipFile open, which then fails once more.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("what", ["a result", "a checkpoint"])
def test_the_disk_is_full_anywhere(tmp_path: Path, monkeypatch: Any, what: str) -> None:
    """For any size that fits: a typed error, and nothing but what was whole before."""
    source, batches = computed_parameter().save(tmp_path / "in"), [programs.random((2, 3, 8, 8))]
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    out, failures = tmp_path / "out", 0
    for size in (int(100 * 1.7**power) for power in range(20)):
        try:
            with full_beyond(size):
                if what == "a result":
                    quant_post_static(None, source, out, data_loader=batches)
                else:
                    out.mkdir(exist_ok=True)
                    calibrate(source, data_loader=batches, checkpoint=out / "c.npz")
            break
        except OutputError:
            failures += 1
            assert not list(tmp_path.glob("temporary/*"))
            assert not list(tmp_path.glob("out/*"))
    assert failures > 3
    if what == "a result":
        assert "quantize" in [op.type for op in load_model(out).ops()]
    else:
        assert Calibration.load(out / "c.npz").batches == 1


def computed_parameter() -> programs.Net:
    """Return a network with a parameter that Paddle has to compute."""
    net = programs.Net([2, 3, 8, 8]).conv(4)
    offsets = net.parameter("offsets", programs.random((4, 1, 1)))
    doubled = net.op("scale", {"X": offsets}, ("Out", "doubled"), [4, 1, 1], {"scale": 2.0})
    return net.then("elementwise_add", {"X": net.last, "Y": doubled}, "Out", {"axis": -1}).end()


@pytest.mark.parametrize("needs", ["a computed parameter", "an int8 run"])
def test_no_temporary_directory(tmp_path: Path, monkeypatch: Any, needs: str) -> None:
    net, options = computed_parameter(), dict[str, Any]()
    if needs == "an int8 run":
        net = programs.Net([2, 3, 8, 8]).conv(4).end()
        options["eval_function"] = lambda _: 1.0
    source = net.save(tmp_path / "in")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))
    with pytest.raises(OutputError, match=rf"^{tmp_path}/none/[\w-]+: .*No such file.* TMPDIR"):
        quant_post_static(
            None, source, tmp_path / "out", data_loader=[programs.random((2, 3, 8, 8))], **options
        )
    assert not (tmp_path / "out").exists()
