"""What can be found in an upload folder that is not as it should be, and how it is told to people and programs."""

from __future__ import annotations

import stat
from dataclasses import dataclass, field

from tusd_py.inspection import plain
from tusd_py.storage.layout import ASIDE

WORKERS = ".workers"
OUR_FOLDERS = frozenset({"partial", "records", WORKERS, ASIDE})

# In this order they are set aside: data whose record had gone first would be removed as a leftover after a crash.
UNFINISHED_KINDS = ("part", "json", "floor")

WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH


@dataclass(frozen=True, slots=True)
class Kind:
    """What can be found. ``remedy`` is what mending does, ``""`` where only a person can decide.

    What is no trouble is told and changes no exit code.
    """

    name: str
    sentence: str
    remedy: str = ""
    is_trouble: bool = True


_KINDS = (
    Kind("torn-record", "the record cannot be read, so nobody knows the upload", "set aside"),
    Kind("torn-finished-record", "the record of finished data cannot be read", "set aside, and a new one made"),
    Kind("no-record", "finished data without a record", "a record made from name and size"),
    Kind("no-data", "the record of an unfinished upload without data", "set aside"),
    Kind("no-floor", "what bounds the offset is missing or torn, so no byte counts", "made anew, at offset 0"),
    Kind("short-data", "the data is shorter than what was known to be on the disk", "goes on from where it ends"),
    Kind("uncounted-tail", "behind the offset lie bytes that do not count", "cut off"),
    Kind("too-long", "the data is longer than the upload", "set aside"),
    Kind("wrong-size", "the finished data has another size than was uploaded", "set aside"),
    Kind("half-finished", "every byte is there, but completion was cut short", "completed"),
    Kind("leftover", "a crash left this behind and nothing refers to it", "removed"),
    Kind("planted", "a link, a FIFO, a folder or somebody else's file in the place of ours", "set aside"),
    Kind("stray", "not a name that we give", "set aside"),
    Kind("open-permissions", "others may write to it", "taken away from them"),
    Kind("foreign-folder", "no folder, or not of the same owner as the upload folder"),
    Kind("unreadable", "the disk does not let us look at it"),
    Kind("data-taken", "finished, and its data was taken out of the folder", is_trouble=False),
    Kind("expired", "left unfinished for too long; the next sweep removes it", is_trouble=False),
    Kind("foreign", "not ours, and in nobody's way", is_trouble=False),
    Kind("aside", "was set aside; look at it and remove it", is_trouble=False),
)

KINDS = {kind.name: kind for kind in _KINDS}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was found: at ``name`` (relative to the folder), of the upload ``id`` where it is one's.

    ``outcome`` is ``repaired``, or ``failed`` where mending was tried in vain.
    """

    kind: Kind
    name: str
    id: str = ""
    outcome: str = ""

    def line(self) -> str:
        """Tell it to people."""
        outcome = {"": "", "failed": " (could not be repaired)", "repaired": f" (repaired: {self.kind.remedy})"}
        return f"{self.kind.name} {plain(self.name)}: {self.kind.sentence}{outcome[self.outcome]}"

    def as_object(self) -> dict[str, object]:
        """Tell it to programs."""
        return {
            "kind": self.kind.name,
            "name": plain(self.name),
            "id": self.id,
            "trouble": self.kind.is_trouble,
            "sentence": self.kind.sentence,
            "outcome": self.outcome,
        }


@dataclass(slots=True)
class Report:
    """What a look at the whole folder gave."""

    findings: list[Finding] = field(default_factory=list)
    unfinished: int = 0
    finished: int = 0
    in_use: int = 0

    @property
    def exit_code(self) -> int:
        """0: everything is sound; 1: there is trouble; 3: there was, and all of it is repaired."""
        troubles = [finding for finding in self.findings if finding.kind.is_trouble]
        if not troubles:
            return 0
        return 3 if all(finding.outcome == "repaired" for finding in troubles) else 1

    def lines(self) -> list[str]:
        """Tell everything to people, the verdict last."""
        troubles = [finding for finding in self.findings if finding.kind.is_trouble]
        repaired = sum(finding.outcome == "repaired" for finding in troubles)
        verdict = f"{len(troubles)} troubles, {repaired} of them repaired" if troubles else "everything is sound"
        counts = f"{self.unfinished} unfinished, {self.finished} finished, {self.in_use} of them in use"
        return [*(finding.line() for finding in self.findings), f"{counts}: {verdict}"]

    def as_object(self) -> dict[str, object]:
        """Tell everything to programs."""
        return {
            "unfinished": self.unfinished,
            "finished": self.finished,
            "in_use": self.in_use,
            "findings": [finding.as_object() for finding in self.findings],
        }
