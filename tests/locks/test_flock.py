from __future__ import annotations

import errno
import fcntl
import os
import resource
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.locks.workers import ID, UploadFolder
from tusd_py.errors import StorageFailed, StorageUnavailable, UploadError, UploadNotFound
from tusd_py.locks import flock


@contextmanager
def locked(find: flock.FindData) -> Iterator[int]:
    descriptor = flock.try_lock_data(find)
    assert descriptor is not None
    try:
        yield descriptor
    finally:
        flock.unlock(descriptor)
        flock.close(descriptor)


def at(path: Path) -> flock.FindData:
    return lambda: path


def in_turn(*paths: Path | None) -> flock.FindData:
    """Data that are found elsewhere each time."""
    places = iter(paths)
    return lambda: next(places)


def test_a_file_is_locked_once(folder: UploadFolder) -> None:
    find = at(folder.partial(ID))
    with locked(find):
        assert flock.try_lock_data(find) is None
    with locked(find):
        pass


def test_a_lock_goes_with_data_that_are_renamed(folder: UploadFolder) -> None:
    with locked(at(folder.partial(ID))):
        folder.partial(ID).rename(folder.complete(ID))
        assert flock.try_lock_data(at(folder.complete(ID))) is None


def test_data_that_move_before_they_are_opened_are_found_again(folder: UploadFolder) -> None:
    folder.partial(ID).rename(folder.complete(ID))
    with locked(in_turn(folder.partial(ID), folder.complete(ID), folder.complete(ID))):
        assert flock.try_lock_data(at(folder.complete(ID))) is None


def test_data_that_move_before_they_are_locked_stay_the_same_data(folder: UploadFolder) -> None:
    def find() -> Path:
        if folder.complete(ID).exists():
            return folder.complete(ID)
        folder.complete(ID).hardlink_to(folder.partial(ID))
        return folder.partial(ID)

    with locked(find):
        assert flock.try_lock_data(at(folder.complete(ID))) is None


def test_a_lock_on_data_that_were_replaced_is_given_up_for_one_on_the_new_data(folder: UploadFolder) -> None:
    calls = 0

    def find() -> Path:
        nonlocal calls
        calls += 1
        if calls == 2:
            new = folder.path / "new"
            new.touch()
            new.replace(folder.partial(ID))
        return folder.partial(ID)

    with locked(find):
        assert flock.try_lock_data(at(folder.partial(ID))) is None


def test_data_that_never_rest_are_left_to_whoever_moves_them(tmp_path: Path) -> None:
    assert flock.try_lock_data(at(tmp_path / "missing")) is None


@pytest.mark.parametrize("calls_before", [0, 1], ids=["before", "while it is locked"])
def test_data_that_are_gone_are_not_found(folder: UploadFolder, calls_before: int) -> None:
    find = in_turn(*[folder.partial(ID)] * calls_before, None)
    with pytest.raises(UploadNotFound):
        flock.try_lock_data(find)
    with locked(at(folder.partial(ID))):
        pass


def plant_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as planted:
        planted.bind(path.name)


@pytest.mark.parametrize(
    "plant",
    [
        Path.mkdir,
        os.mkfifo,
        plant_socket,
        lambda path: path.symlink_to("somewhere"),
        lambda path: path.symlink_to(__file__),
    ],
    ids=["folder", "FIFO", "socket", "dangling link", "link to a file"],
)
def test_what_was_planted_in_the_place_of_data_is_no_upload(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plant: Callable[[Path], None]
) -> None:
    monkeypatch.chdir(tmp_path)
    plant(tmp_path / "planted")
    with pytest.raises(UploadNotFound):
        flock.try_lock_data(at(tmp_path / "planted"))


@pytest.mark.parametrize(
    ("number", "error"),
    [
        (errno.ENOLCK, StorageUnavailable),
        (errno.ESTALE, StorageUnavailable),
        (errno.EIO, StorageFailed),
        (errno.EBADF, StorageFailed),
    ],
    ids=lambda value: errno.errorcode[value] if isinstance(value, int) else value.__name__,
)
def test_trouble_of_the_file_system_is_told_apart(
    folder: UploadFolder, monkeypatch: pytest.MonkeyPatch, number: int, error: type[UploadError]
) -> None:
    def fail(descriptor: int, operation: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", fail)
    with pytest.raises(error) as caught:
        flock.try_lock_data(at(folder.partial(ID)))
    assert isinstance(caught.value.__cause__, OSError)
    assert str(folder.path) not in str(caught.value)


def test_without_a_descriptor_left_the_storage_is_unavailable(folder: UploadFolder) -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, before[1]))
    try:
        with pytest.raises(StorageUnavailable):
            flock.try_lock_data(at(folder.partial(ID)))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    with locked(at(folder.partial(ID))):
        pass


def test_closing_deleted_data_is_not_called_quick(folder: UploadFolder) -> None:
    for path, is_quick in ((folder.partial(ID), True), (folder.partial(ID), False)):
        descriptor = flock.try_lock_data(at(path))
        assert descriptor is not None
        if not is_quick:
            path.unlink()
        assert flock.unlock(descriptor) is is_quick
        flock.close(descriptor)


def test_a_folder_is_locked_once(tmp_path: Path) -> None:
    descriptor = flock.try_lock_folder(tmp_path)
    assert descriptor is not None
    assert flock.try_lock_folder(tmp_path) is None
    flock.close(descriptor)


def test_a_folder_that_is_missing_is_a_fault_of_the_storage(tmp_path: Path) -> None:
    with pytest.raises(StorageFailed):
        flock.try_lock_folder(tmp_path / "missing")
