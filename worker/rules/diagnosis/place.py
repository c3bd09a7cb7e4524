"""Judges the place of a queue: it should be a local disk with room, which stores soon."""

from worker.rules.diagnosis.finding import Finding, failed, passed, warned

NETWORK_KINDS = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "afs", "ncpfs", "lustre", "ceph"}
)
"""File systems whose locks and writes depend on another machine."""
PASSING_KINDS = frozenset({"tmpfs", "ramfs"})
"""File systems that forget everything when the machine stops."""
LOCAL_DISK = "give an --out on a disk of this machine"
GIB = 1 << 30
FREE_FAIL_BYTES = 64 << 20
FREE_WARN_BYTES = GIB
FILES_FAIL = 64
SYNC_WARN_S = 0.05
"""Fifty records are stored with each commit: at 20 commits a second that is 1,000 a second."""


def judge_kind(kind: str | None) -> Finding | None:
    """Judge the kind of file system, as the system names it; None: nothing to say of it."""
    if kind is None:
        return None
    if kind in NETWORK_KINDS or kind.startswith("fuse.sshfs"):
        return failed("disk", f"{kind} is a network share: locks cannot be relied on", LOCAL_DISK)
    if kind in PASSING_KINDS:
        return warned("disk", f"{kind} is in memory: a restart of the machine loses it", LOCAL_DISK)
    return None


def judge_space(free_bytes: int, free_files: int | None) -> Finding:
    """Judge the room that is left. `free_files`: None where the file system has no such limit."""
    message = f"{free_bytes / GIB:,.1f} GiB free"
    advice = "make room: the queue and the result files grow with the records"
    if free_files is not None and free_files < FILES_FAIL:
        return failed("space", f"room for {free_files} more files", "remove files there")
    if free_bytes < FREE_FAIL_BYTES:
        return failed("space", f"{free_bytes >> 20} MiB free", advice)
    if free_bytes < FREE_WARN_BYTES:
        return warned("space", message, advice)
    return passed("space", message)


def judge_sync(seconds: float) -> Finding:
    """Judge how long the disk takes to store one page for good, in the median."""
    message = f"a write is stored after {seconds * 1000:.1f} ms"
    if seconds > SYNC_WARN_S:
        return warned("write", message, "a slow disk: give an --out on a faster one")
    return passed("write", message)
