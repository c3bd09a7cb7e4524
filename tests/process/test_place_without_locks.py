"""A network share without a lock service: whoever asks for a lock gets ENOLCK."""

import subprocess
from pathlib import Path

import pytest

from tests.support.processes import PATIENCE_S, ROOT, Job, environment
from tests.support.topics import records

REFUSES = """
import errno, fcntl, os
def refuse(*_):
    raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))
fcntl.{name} = refuse
"""
SENTENCE = (
    "out: files cannot be locked there (No locks available), as on some network shares: "
    "--out must lie on a disk of this machine"
)


def run_without(
    lock: str, job: Job, tmp_path: Path, *words: str | Path
) -> subprocess.CompletedProcess[bytes]:
    """Run a command in which one kind of lock of the operating system is refused."""
    site = tmp_path / "site"
    site.mkdir(exist_ok=True)
    (site / "sitecustomize.py").write_text(REFUSES.format(name=lock))
    return subprocess.run(
        job.command(*words),
        env=environment() | {"PYTHONPATH": f"{site}:{ROOT}"},
        cwd=job.directory,
        capture_output=True,
        timeout=PATIENCE_S,
        check=False,
    )


@pytest.mark.parametrize("lock", ["flock", "lockf"])
def test_a_place_without_locks_is_named_and_halts(
    offline_job: Job, tmp_path: Path, lock: str
) -> None:
    path = offline_job.write(records(3))
    done = run_without(lock, offline_job, tmp_path, *offline_job.backfill_words(path))
    assert done.returncode == 3
    assert SENTENCE in done.stderr.decode()
    assert b"another topic-import" not in done.stderr
    assert offline_job.run("enqueue", path).returncode == 0
    done = run_without(lock, offline_job, tmp_path, "status")
    assert done.returncode == 3
    assert done.stderr.decode() == f"topic-import: {SENTENCE}\n"
