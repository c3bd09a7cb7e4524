"""Which settings are missing, and which are allowed but unwise."""

from collections.abc import Iterator

from worker.settings.model import REGIONS, App, Settings, variable

SERVICE_QUOTA_PER_S = 200
"""REST page of import_topic; packs that raise a quota are not sold for it."""
SERVICE_TIMEOUT_S = 3
"""REST overview: the service itself answers 60008 then."""


def unwise(settings: Settings) -> Iterator[str]:
    """Yield a sentence for each value that is allowed but likely to do harm."""
    rate, http = settings.rate.calls_per_second, settings.http
    if rate == 0:
        yield "rate.calls_per_second is 0: no quota is kept"
    elif rate > SERVICE_QUOTA_PER_S:
        yield (
            f"rate.calls_per_second is {rate:g}: the service allows {SERVICE_QUOTA_PER_S} "
            "to an app and sells no more"
        )
    if http.total_timeout <= SERVICE_TIMEOUT_S:
        yield (
            f"http.total_timeout is {http.total_timeout:g} s: the service itself gives up after "
            f"{SERVICE_TIMEOUT_S} s, give it longer"
        )
    if http.connect_timeout > http.total_timeout:
        yield "http.connect_timeout is longer than http.total_timeout, which ends first"
    if settings.records.topic_ids == "as-given":
        yield (
            'records.topic_ids is "as-given": a record without TopicId whose answer is lost may '
            "be imported twice"
        )


def app_problems(app: App) -> Iterator[str]:
    """Yield a sentence for each setting that a call needs and that is missing."""
    if app.sdk_app_id is None:
        yield f"app.sdk_app_id is not set: set it in the file or as {variable('app', 'sdk_app_id')}"
    if not (app.secret_key or app.secret_key_file or app.usersig):
        yield (
            f"no key: set {variable('app', 'secret_key')} or app.secret_key_file "
            "(the app's key from the console), or app.usersig"
        )
    if not app.region and not app.base_url:
        yield f"no host: set app.region ({', '.join(REGIONS)}) or app.base_url"
