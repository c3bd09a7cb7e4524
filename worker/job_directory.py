"""The names of the files in the directory of a job, `--out` (a contract)."""

QUEUE_NAME = "queue.sqlite3"
IMPORTED_NAME = "imported.jsonl"
DEAD_LETTER_NAME = "dead-letter.jsonl"
DISMISSED_NAME = "dismissed.jsonl"
REPORT_NAME = "report.json"
