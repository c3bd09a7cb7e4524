"""The copy of the results in Redis that a replica keeps as files."""

from collections.abc import Mapping
from contextlib import ExitStack, closing
from pathlib import Path

from worker.job_directory import DEAD_LETTER_NAME, IMPORTED_NAME
from worker.logs import logger
from worker.outputs.copied_file import CopiedFile
from worker.outputs.files import OUT_OF_ROOM

log = logger()


class Copies:
    """A replica's `imported.jsonl` and `dead-letter.jsonl`. Raises OSError if one cannot be opened.

    Lines that the disk refuses wait in memory; `trouble` holds the reason then, else None.
    `rotate_at_bytes`: the size from which a file is put aside and a new one begun.
    """

    def __init__(self, out: Path, rotate_at_bytes: int) -> None:
        self.trouble: str | None = None
        self._waiting: dict[str, list[bytes]] = {"imported": [], "dead": []}
        with ExitStack() as opened:
            names = {"imported": IMPORTED_NAME, "dead": DEAD_LETTER_NAME}
            self._files = {
                kind: opened.enter_context(
                    closing(CopiedFile(out / name, rotate_at_bytes=rotate_at_bytes))
                )
                for kind, name in names.items()
            }
            self._opened = opened.pop_all()

    def append(self, lines: Mapping[str, list[bytes]]) -> None:
        """Write lines by kind, now or as soon as there is room."""
        for kind, of_kind in lines.items():
            self._waiting[kind] += of_kind
        self.flush()

    def flush(self) -> None:
        """Try to write the lines that wait."""
        trouble = None
        for kind, lines in self._waiting.items():
            try:
                self._files[kind].append(lines)
            except OSError as error:
                advice = "; make room" if error.errno in OUT_OF_ROOM else ""
                trouble = f"{self._files[kind].path}: {error.strerror}{advice}"
            else:
                lines.clear()
        if trouble and not self.trouble:
            log.error("the copy of the results cannot be written; waiting for it", reason=trouble)
        self.trouble = trouble

    def close(self) -> None:
        """Close the files; lines that are missing in them are in the streams of the queue."""
        self.flush()
        missing = sum(map(len, self._waiting.values()))
        if missing:
            log.error("the copy of the results lacks lines that the streams hold", lines=missing)
        self._opened.close()
