"""The one place that knows which engines of the queue exist, and which one the settings name."""

from pathlib import Path

from worker.job_directory import QUEUE_NAME
from worker.jobs import UsageError
from worker.jobs.distributed import DistributedEngine
from worker.jobs.embedded import EmbeddedEngine
from worker.jobs.engine import Engine
from worker.jobs.from_settings import reveal_redis_url
from worker.settings.addresses import REDIS_URLS
from worker.settings.model import Settings

SQLITE_URL = "sqlite:///"


def choose_engine(settings: Settings, out: Path, *, adopt: bool = False) -> Engine:
    """Return the engine that `queue.url` names; without one, the embedded queue in `out`.

    `adopt`: take over what only the result files know, which only an embedded queue can.
    Nothing is opened yet. Raises UsageError for a URL that names no queue of this job.
    """
    url = redis_url(settings, out)
    if not url:
        return EmbeddedEngine(settings, out, adopt=adopt)
    if adopt:
        raise UsageError("--adopt: only for a queue in --out, and queue.url names one in Redis")
    return DistributedEngine(settings, out, url)


def embedded_engine(settings: Settings, out: Path, *, adopt: bool = False) -> EmbeddedEngine:
    """Return the embedded engine, for a job that both puts and takes.

    Raises UsageError if `queue.url` names another queue.
    """
    if redis_url(settings, out):
        raise UsageError(
            "queue.url: backfill keeps its queue in --out; for a queue in Redis use "
            "`topic-import enqueue` and `topic-import serve --until-empty`"
        )
    return EmbeddedEngine(settings, out, adopt=adopt)


def redis_url(settings: Settings, out: Path) -> str | None:
    """Return the URL of a queue in Redis, None for the embedded queue in `out`.

    Raises UsageError for a URL that names no queue of this job.
    """
    setting = settings.queue.url
    url = setting.get_secret_value() if setting else ""
    if setting and url.startswith(REDIS_URLS):
        return reveal_redis_url(setting)
    own = out / QUEUE_NAME
    if url and not url.startswith(SQLITE_URL):
        raise UsageError(f"queue.url: {SQLITE_URL}{own} or redis://host:6379/0?stream=topics")
    if url and Path(url.removeprefix(SQLITE_URL)).resolve() != own.resolve():
        raise UsageError(f"queue.url: the embedded queue of this job is {SQLITE_URL}{own} (--out)")
    return None
