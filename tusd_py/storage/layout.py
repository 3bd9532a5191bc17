"""Where everything lies in the folder of a disk store, and how a file there is opened.

    folder/
    ├── partial/<id>.part              data of an unfinished upload
    ├── partial/<id>.json              its record
    ├── partial/<id>.floor             what bounds its offset (see floor.py)
    ├── partial/.<id>.<random>.tmp     a record that is being written
    ├── records/<id>.json              record of a completed upload
    ├── <id><extension>                data of a completed upload
    └── aside/                         what was in the way of ours, or cannot be used, for somebody to look at

Paths are made here alone, and only from an id that obeys the grammar: nothing that a client sends can become a path
in any other way. Folders are made 0700 and files 0600. Symbolic links are never followed, and what is no regular file
(a FIFO would keep us waiting for ever) is treated as if it were not there. So is a record or unfinished data that
belongs to somebody else or has a second name: writing there would change a file that is not ours. Finished data is
for those who use the folder; they may link it to other places.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tusd_py.errors import UploadNotFound
from tusd_py.upload import is_id

FOLDER_MODE = 0o700
FILE_MODE = 0o600

ASIDE = "aside"

TEMPORARY_NAME = re.compile(r"\.[A-Za-z0-9][A-Za-z0-9_-]{15,63}\.[0-9a-f]{16}\.tmp")

# What open() says of a path where there is nothing, or something that is not a plain file: a link (ELOOP), a folder,
# a FIFO without a reader or a socket (ENXIO), a file in the place of a folder.
_ABSENT = frozenset({errno.ENOENT, errno.ELOOP, errno.EISDIR, errno.ENXIO, errno.ENOTDIR})


@dataclass(frozen=True, slots=True)
class Layout:
    """The paths below ``folder``. Each raises ``UploadNotFound`` for an id that is none."""

    folder: str

    @property
    def partial(self) -> str:
        return f"{self.folder}/partial"

    @property
    def records(self) -> str:
        return f"{self.folder}/records"

    def data(self, id: str) -> str:
        return f"{self.folder}/partial/{_checked(id)}.part"

    def record(self, id: str) -> str:
        return f"{self.folder}/partial/{_checked(id)}.json"

    def floor(self, id: str) -> str:
        return f"{self.folder}/partial/{_checked(id)}.floor"

    def temporary(self, id: str) -> str:
        # In partial/ also for records of completed uploads, so that whoever looks for leftovers looks there alone.
        return f"{self.folder}/partial/.{_checked(id)}.{os.urandom(8).hex()}.tmp"

    def complete_record(self, id: str) -> str:
        return f"{self.folder}/records/{_checked(id)}.json"

    def complete_data(self, id: str, extension: str) -> str:
        return f"{self.folder}/{_checked(id)}{extension}"

    def make(self) -> None:
        """Make the folders that are missing; those that are there stay as they are.

        Raises:
            PermissionError, NotADirectoryError: others could put into them what they like (``check_folder``).
        """
        Path(self.folder).mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
        check_folder(self.folder, os.stat(self.folder))
        for folder in (self.partial, self.records):
            Path(folder).mkdir(mode=FOLDER_MODE, exist_ok=True)
            check_folder(folder, os.lstat(folder))


def set_aside(name: str, layout: Layout) -> None:
    """Move ``name``, relative to the folder, into ``aside/``, whatever it is, and overwrite nothing there.

    Raises:
        NotADirectoryError: ``aside/`` leads out of the folder.
    """
    aside = Path(layout.folder, ASIDE)
    aside.mkdir(mode=FOLDER_MODE, exist_ok=True)
    if aside.is_symlink():
        raise NotADirectoryError("what is set aside would leave the folder")
    target = aside / name.replace("/", "-")
    if os.path.lexists(target):
        target = target.with_name(f"{target.name}.{os.urandom(8).hex()}")
    os.rename(f"{layout.folder}/{name}", target)


def check_folder(path: str, status: os.stat_result) -> None:
    """Refuse a folder that others may write to: they could take away uploads and plant their own.

    A group may, for those who take finished uploads out of the folder. So may root, who can do so anyway.
    """
    if not stat.S_ISDIR(status.st_mode):
        raise NotADirectoryError(errno.ENOTDIR, f"{os.path.basename(path)} is no folder")
    if status.st_uid not in (os.geteuid(), 0):
        raise PermissionError(errno.EACCES, f"it belongs to another user (number {status.st_uid})")
    if status.st_mode & stat.S_IWOTH:
        raise PermissionError(errno.EACCES, "everybody may write to it (chmod o-w takes that away)")


def _checked(id: str) -> str:
    if not is_id(id):
        raise UploadNotFound
    return id


def open_regular(path: str, flags: int, *, is_shared: bool = False) -> tuple[int, os.stat_result] | None:
    """Open a regular file and return its descriptor and status; ``None`` when there is none at ``path``.

    Unless it ``is_shared``, it has to be ours alone (``is_ours``). Of one that is replaced just now, it is the new one.

    Raises ``OSError`` for everything that says nothing about the path itself (no descriptor left, a folder that we
    may not look into).
    """
    try:
        descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK, FILE_MODE)
    except OSError as error:
        if error.errno in _ABSENT or (error.errno == errno.EACCES and _is_locked_away(path)):
            return None
        raise
    status = os.fstat(descriptor)
    if stat.S_ISREG(status.st_mode) and status.st_nlink == 0:
        # A record is replaced by a rename, and this one has no name any more. What has it now is meant.
        os.close(descriptor)
        return open_regular(path, flags, is_shared=is_shared)
    if stat.S_ISREG(status.st_mode) and (is_shared or is_ours(status)):
        return descriptor, status
    os.close(descriptor)
    return None


def is_ours(status: os.stat_result) -> bool:
    """Tell whether a file belongs to us and has no other name. To root every owner is right."""
    return status.st_nlink == 1 and os.geteuid() in (status.st_uid, 0)


def _is_locked_away(path: str) -> bool:
    """Tell whether it is the file itself that we may not open. It is lost to us, others beside it are not."""
    try:
        return stat.S_ISREG(os.lstat(path).st_mode)
    except OSError:
        return False


def stat_regular(path: str) -> os.stat_result | None:
    """Return the status of the regular file at ``path``, ours or not; ``None`` when there is none."""
    try:
        status = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return status if stat.S_ISREG(status.st_mode) else None


def write_all(
    descriptor: int,
    data: bytes | bytearray | memoryview,
    offset: int,
    moved: Callable[[int], None] | None = None,
) -> None:
    """Write all of ``data`` at ``offset``, and call ``moved`` with the new end whenever some of it was written.

    The system may take less than it is given; what it took before an error has been written and counts.
    """
    with memoryview(data).cast("B") as view:
        done = 0
        while done < len(view):
            with view[done:] as rest:
                written = os.pwrite(descriptor, rest, offset + done)
            if written == 0:
                raise OSError(errno.EIO, "the file takes no more bytes and does not say why")
            done += written
            if moved is not None:
                moved(offset + done)


def remove(path: str) -> None:
    """Unlink ``path``; that it is gone already is no error."""
    try:
        os.unlink(path)
    except (FileNotFoundError, NotADirectoryError):
        return


def sync_folder(path: str) -> None:
    """Make the names in the folder durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
