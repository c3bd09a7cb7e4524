"""Reasons for a halt that are not error codes of the service."""

from enum import StrEnum


class HaltCode(StrEnum):
    """Why a run halted, where no error code of the service says it.

    The values are written to `report.json`, the log and the summary, so they never change.
    """

    STORAGE = "storage"
    """The queue or a result file cannot be read or written."""
    OUTAGE = "outage"
    """No call succeeded for as long as `retry.patience` allows."""
    INPUT = "input"
    """An input cannot be read to its end."""
    DEFECT = "defect"
    """The program itself failed."""
    REJECTED = "rejected"
    """So many records in a row were refused that the mapping of the fields looks wrong."""
