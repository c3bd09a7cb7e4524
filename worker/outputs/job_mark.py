"""The ID of the job to which the files in a directory belong, in a small file of its own."""

from pathlib import Path

from worker.job_directory import JOB_ID_NAME
from worker.outputs.files import open_to_read, write_whole

ID_BYTES_MAX = 64


def read_job_mark(out: Path) -> str | None:
    """Return the ID of the job whose files these are, None without one. Raises OSError."""
    try:
        with open_to_read(out / JOB_ID_NAME) as file:
            written = file.read(ID_BYTES_MAX)
    except FileNotFoundError:
        return None
    job_id = written.decode(errors="replace").strip()
    return job_id if job_id.isalnum() else None


def write_job_mark(out: Path, job_id: str) -> None:
    """Mark the files as those of this job. Raises OSError."""
    if read_job_mark(out) != job_id:
        write_whole(out / JOB_ID_NAME, f"{job_id}\n".encode())
