"""The names of the files in the directory of a job, `--out` (a contract)."""

from pathlib import Path

DEFAULT_OUT = Path("out")
QUEUE_NAME = "queue.sqlite3"
IMPORTED_NAME = "imported.jsonl"
DEAD_LETTER_NAME = "dead-letter.jsonl"
DISMISSED_NAME = "dismissed.jsonl"
REPORT_NAME = "report.json"
JOB_ID_NAME = ".job"
"""Holds the ID of the job to which the files belong; its queue has the same ID."""
WRITTEN_NAMES = (IMPORTED_NAME, DEAD_LETTER_NAME, DISMISSED_NAME, REPORT_NAME, JOB_ID_NAME)
"""The files that a job writes beside its queue; each is first written under its name + `.new`."""
