"""From settings to parts: what more than one job is built from."""

import errno
import os
from dataclasses import replace
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

from worker.intake.sources import InputError, Source, resolve
from worker.job_directory import DEAD_LETTER_NAME, IMPORTED_NAME, QUEUE_NAME
from worker.jobs import UsageError
from worker.outputs.result_file import ResultFile
from worker.queues.contract import JobIdentity
from worker.queues.sqlite.store import SqliteStore
from worker.redaction import keep_secret
from worker.rules.topic.fields import FieldLimits
from worker.rules.topic.topic import RecordRules
from worker.settings.addresses import REDIS_URLS
from worker.settings.model import Settings

SQLITE_URL = "sqlite:///"
NO_REDIS = "Redis needs the extra: pip install 'topic-import-worker[redis]'"
OUT_OF_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO})


def record_rules(settings: Settings) -> RecordRules:
    """Read the rules for records off the settings."""
    records = settings.records
    return RecordRules(
        limits=FieldLimits(**records.limits.model_dump()),
        truncate=records.on_too_long == "truncate",
        derive_ids=records.topic_ids == "derive",
        fields=records.fields,
        key_field=records.key_field,
    )


def job_identity(settings: Settings) -> JobIdentity:
    return JobIdentity(
        app=str(settings.app.sdk_app_id),
        key_field=settings.records.key_field or "",
        topic_ids=settings.records.topic_ids,
    )


def resolve_inputs(paths: list[str]) -> list[Source]:
    """Look at all inputs; every one that cannot be read is named."""
    sources, problems = [], []
    for path in paths:
        try:
            sources.append(resolve(path))
        except InputError as error:
            problems.append(str(error))
    if problems:
        raise UsageError("\n".join(problems))
    return sources


def no_job(out: Path) -> str:
    """Say that there is nothing in a directory, and what may be meant."""
    return (
        f"--out {out}: there is no job ({QUEUE_NAME}): name the --out that it was begun with, "
        "or for a queue in Redis set queue.url"
    )


def redis_url(settings: Settings, out: Path) -> str | None:
    """Tell the URL of a queue in Redis; None: the embedded one in `out`."""
    url = settings.queue.url.get_secret_value() if settings.queue.url else ""
    if url.startswith(REDIS_URLS):
        keep_passwords(url)
        return url
    own = out / QUEUE_NAME
    if url and not url.startswith(SQLITE_URL):
        raise UsageError(f"queue.url: {SQLITE_URL}{own} or redis://host:6379/0?stream=topics")
    if url and Path(url.removeprefix(SQLITE_URL)).resolve() != own.resolve():
        raise UsageError(f"queue.url: the embedded queue of this job is {SQLITE_URL}{own} (--out)")
    return None


def keep_passwords(url: str) -> None:
    """Let no log show the passwords in a URL of Redis, as they are written or as they are sent."""
    parts = urlsplit(url)
    written = parts.password or ""
    for password in (written, unquote(written), dict(parse_qsl(parts.query)).get("password", "")):
        keep_secret(password)


def require_embedded_queue(settings: Settings, out: Path) -> None:
    """Refuse a queue in Redis for a job that puts and takes at once."""
    if redis_url(settings, out):
        raise UsageError(
            "queue.url: backfill keeps its queue in --out; for a queue in Redis use "
            "`topic-import enqueue` and `topic-import serve --until-empty`"
        )


def prepare_directory(out: Path) -> None:
    """Make the directory of a job, or say why it cannot be written."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        probe = out / f".writable-{os.getpid()}"
        probe.touch(mode=0o600)
        probe.unlink()
    except OSError as error:
        if error.errno in OUT_OF_ROOM:
            return  # the queue says it, as a halt: there is room again one day
        raise UsageError(f"--out {out}: {error.strerror}: name a directory to write to") from None


class ResultFiles:
    """The result files of a job; all methods for the queue's thread. Raises OSError.

    `rotate_at_bytes`: a file that has grown beyond is put aside, under a name that tells the last
    outcome in it, and a new one begun.
    """

    def __init__(self, out: Path, store: SqliteStore, *, rotate_at_bytes: int = 0) -> None:
        self._store = store
        self._rotate_at_bytes = rotate_at_bytes
        self._dead_path = out / DEAD_LETTER_NAME
        self._imported = ResultFile(
            out / IMPORTED_NAME,
            lambda seq, count: store.lines("imported", seq, count),
            store.rotated("imported"),
        )
        self._dead = ResultFile(
            self._dead_path,
            lambda seq, count: store.lines("dead", seq, count),
            store.rotated("dead"),
        )

    def reconcile(self, sources: list[Source]) -> list[Source]:
        """Make both files what the queue says; the sources, of which one may be set aside."""
        self._imported.reconcile()
        is_input = [self._is_dead_letter_file(source) for source in sources]
        aside = self._dead.reconcile(is_input=any(is_input))
        if self._store.dead_file_is_stale():
            self._store.dead_file_was_rewritten()
        return [
            replace(source, path=str(aside)) if aside and was_moved else source
            for source, was_moved in zip(sources, is_input, strict=True)
        ]

    def _is_dead_letter_file(self, source: Source) -> bool:
        try:
            return self._dead_path.samefile(source.path)
        except OSError:
            return False

    def follow(self) -> None:
        self._imported.follow()
        self._dead.follow()
        if self._rotate_at_bytes:
            for kind, file in (("imported", self._imported), ("dead", self._dead)):
                if file.size_bytes >= self._rotate_at_bytes:
                    self._store.set_rotated(kind, file.rotate())

    def finish(self) -> None:
        """Bring both up to date for the last time, replaced dead letters included."""
        self.follow()
        if self._store.dead_file_is_stale():
            self._dead.reconcile(rewrite=True)
            self._store.dead_file_was_rewritten()

    def close(self) -> None:
        self._imported.close()
        self._dead.close()
