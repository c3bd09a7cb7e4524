"""Commands, options, exit codes; nothing else. Each command imports only what it needs."""

import sys
from collections.abc import Callable, Coroutine
from contextlib import suppress
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn, TypeVar

import typer

from worker import __version__
from worker.job_directory import DEFAULT_OUT
from worker.manual import PAGES

if TYPE_CHECKING:
    from worker.settings.loading import Loaded
    from worker.settings.model import Settings

USAGE = 2
HALTED = 3
INTERRUPTED = 130

app = typer.Typer(
    name="topic-import",
    help="Import topics into Tencent Cloud Chat communities: nothing lost, nothing twice.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

INPUTS_HELP = "JSON Lines, a JSON array, CSV or Parquet, compressed too; - is standard input."
Inputs = Annotated[
    list[str] | None,
    typer.Argument(metavar="INPUT", help=INPUTS_HELP),
]
Config = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE",
        help="Settings (TOML); else $TOPIC_IMPORT_CONFIG, else ./topic-import.toml.",
    ),
]
Command = TypeVar("Command", bound=Callable[..., None])
LogFormat = Literal["console", "json"]
LogLevel = Literal["debug", "info", "warning", "error"]
Verdict = Literal["imported", "exists", "retry", "throttled", "renew", "reject", "hold", "halt"]
Format = Annotated[LogFormat, typer.Option("--log-format", help="How logs are written.")]
Level = Annotated[LogLevel, typer.Option("--log-level", help="The lowest level that is logged.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="Log only errors, show no progress.")]
Out = Annotated[Path, typer.Option("--out", metavar="DIR", help="The directory of the job.")]
Adopt = Annotated[
    bool, typer.Option("--adopt", help="Take over topics that only the result files know.")
]
Reasons = Annotated[
    Literal["invalid", "rejected", "exhausted", "conflict"] | None,
    typer.Option("--reason", help="Only those dead-lettered for this reason."),
]
CodeChoice = Annotated[
    int | None, typer.Option("--code", metavar="N", help="Only those with this code.")
]
GroupChoice = Annotated[
    str | None, typer.Option("--group", metavar="ID", help="Only those of this community.")
]
SourceChoice = Annotated[
    str | None,
    typer.Option("--source", metavar="PATH", help="Only those read from this path, or path:line."),
]
BaseUrl = Annotated[
    str | None,
    typer.Option("--base-url", metavar="URL", help="The service's URL, in place of app.region."),
]
Rate = Annotated[
    float | None, typer.Option("--rate", metavar="N", help="Calls a second; 0: no limit.")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only list and count.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Fields = Annotated[
    list[str] | None,
    typer.Option(
        "--field", metavar="NAME=FIELD", help="Where a field is: purpose.value=Introduction."
    ),
]
Constants = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="FIELD=VALUE", help="A field that all records have."),
]
IgnoreUnknown = Annotated[
    bool, typer.Option("--ignore-unknown", help="Leave out fields that nothing maps.")
]
KeyField = Annotated[
    str | None, typer.Option("--key-field", help="The field that is the record's key.")
]
Recipe = Annotated[
    str | None,
    typer.Option("--recipe", help="A mapping that comes with the program: slack, zulip, ..."),
]


def _command(name: str) -> Callable[[Command], Command]:
    """Register a command with its page of the manual."""
    page = PAGES[name]
    return app.command(name, short_help=page.sentence, epilog=page.end)


def main() -> NoReturn:
    """Run the command line.

    A mistake of the user ends with a sentence and exit code 2, a queue or a disk that refuses with
    a sentence and exit code 3.
    """
    if isinstance(sys.stdout, TextIOWrapper):
        # A path may hold what the terminal's encoding cannot show.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        app(standalone_mode=True)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except Exception as error:
        code = _report(error)
        if code is None:
            raise
        sys.exit(code)
    sys.exit(0)


def _report(error: Exception) -> int | None:
    """Print an error that is no defect and return the exit code for it; None for a defect."""
    # Imported only now: a command that works needs none of these.
    from worker.jobs import UsageError
    from worker.queues.contract import JobMismatchError, QueueError, QueueTakenError
    from worker.settings.errors import SettingsError

    match error:
        case UsageError() | SettingsError() | QueueTakenError() | JobMismatchError():
            _print_error(*error.args)
            return USAGE
        case QueueError():
            _print_error(*error.args)
            return HALTED
        case OSError() if error.filename is not None:
            _print_error(f"{error.filename}: {error.strerror}")
            return HALTED
        case _:
            return None


def _print_error(*lines: object) -> None:
    """Print an error on standard error, one line for each argument, without secrets."""
    from worker.redaction import redact
    from worker.rules.visible_text import visible

    with suppress(OSError):
        for line in lines:
            print(f"topic-import: {visible(redact(str(line)))}", file=sys.stderr)  # noqa: T201


def _print_version(is_asked: bool) -> None:
    if is_asked:
        typer.echo(f"topic-import {__version__}")
        raise typer.Exit


@app.callback()
def options_of_the_program(
    _version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    """Declare the options that stand before a command."""


@_command("backfill")
def backfill(
    inputs: Inputs = None,
    out: Out = DEFAULT_OUT,
    base_url: BaseUrl = None,
    rate: Rate = None,
    limit: Annotated[
        int | None,
        typer.Option("--limit", metavar="N", min=1, help="Read and import at most N records."),
    ] = None,
    no_progress: Annotated[bool, typer.Option("--no-progress", help="Show no progress.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only check, send nothing.")] = False,
    adopt: Adopt = False,
    recipe: Recipe = None,
    field: Fields = None,
    constant: Constants = None,
    ignore_unknown: IgnoreUnknown = False,
    key_field: KeyField = None,
    config: Config = None,
    log_format: Format = "console",
    log_level: Level = "info",
    quiet: Quiet = False,
) -> None:
    """Import files, and stop when all records are settled.

    Run again with the same --out, the job continues; without INPUT with what is queued.
    """
    options = _options(base_url, rate) | {
        "records": _mapping(field, constant, ignore_unknown, key_field)
    }
    settings = _settings(config, log_format, log_level, quiet, options, recipe)
    if dry_run:
        from worker.jobs.check import check as dry

        _exit(dry(settings, inputs or [], as_json=False))
    from worker.jobs.backfill import Options
    from worker.jobs.backfill import backfill as run

    chosen = Options(inputs or [], out, limit, adopt, show_progress=not (no_progress or quiet))
    _exit(_run(run(settings, chosen)))


@_command("serve")
def serve(
    until_empty: Annotated[
        bool,
        typer.Option(
            "--until-empty", help="Stop when the queue is empty, or when a person must act."
        ),
    ] = False,
    out: Out = DEFAULT_OUT,
    base_url: BaseUrl = None,
    rate: Rate = None,
    adopt: Adopt = False,
    recipe: Recipe = None,
    field: Fields = None,
    constant: Constants = None,
    ignore_unknown: IgnoreUnknown = False,
    key_field: KeyField = None,
    config: Config = None,
    log_format: Format = "console",
    log_level: Level = "info",
    quiet: Quiet = False,
) -> None:
    """Import from the queue until SIGTERM, with an endpoint for monitors (admin.listen).

    A service waits through halts and outages. With --until-empty it ends like a backfill: when
    the queue is empty, what other replicas hold included, or when a person must act.
    """
    options = _options(base_url, rate) | {
        "records": _mapping(field, constant, ignore_unknown, key_field)
    }
    settings = _settings(config, log_format, log_level, quiet, options, recipe)
    from worker.jobs.serve import Options
    from worker.jobs.serve import serve as run

    _exit(_run(run(settings, Options(out, until_empty, adopt))))


@_command("enqueue")
def enqueue(
    inputs: Annotated[list[str], typer.Argument(metavar="INPUT", help=INPUTS_HELP)],
    out: Out = DEFAULT_OUT,
    recipe: Recipe = None,
    field: Fields = None,
    constant: Constants = None,
    ignore_unknown: IgnoreUnknown = False,
    key_field: KeyField = None,
    config: Config = None,
    log_format: Format = "console",
    log_level: Level = "info",
    quiet: Quiet = False,
) -> None:
    """Put the records of files into the queue.

    Run again, it continues, and adds nothing twice.
    """
    options = {"records": _mapping(field, constant, ignore_unknown, key_field)}
    settings = _settings(config, log_format, log_level, quiet, options, recipe)
    from worker.jobs.enqueue import enqueue as run

    _exit(_run(run(settings, inputs, out)))


@_command("replay")
def replay(
    reason: Reasons = None,
    code: CodeChoice = None,
    group: GroupChoice = None,
    source: SourceChoice = None,
    dry_run: DryRun = False,
    out: Out = DEFAULT_OUT,
    recipe: Recipe = None,
    field: Fields = None,
    constant: Constants = None,
    ignore_unknown: IgnoreUnknown = False,
    key_field: KeyField = None,
    config: Config = None,
    log_format: Format = "console",
    log_level: Level = "info",
    quiet: Quiet = False,
) -> None:
    """Put dead letters back into the queue after a fix.

    Options choose which; without any, all that are valid now.
    """
    options = {"records": _mapping(field, constant, ignore_unknown, key_field)}
    settings = _settings(config, log_format, log_level, quiet, options, recipe)
    from worker.jobs.engine import Choice
    from worker.jobs.replay import replay as run

    _exit(_run(run(settings, Choice(reason, code, group, source), out, dry_run=dry_run)))


@_command("dismiss")
def dismiss(
    reason: Reasons = None,
    code: CodeChoice = None,
    group: GroupChoice = None,
    source: SourceChoice = None,
    dry_run: DryRun = False,
    out: Out = DEFAULT_OUT,
    recipe: Recipe = None,
    field: Fields = None,
    constant: Constants = None,
    ignore_unknown: IgnoreUnknown = False,
    key_field: KeyField = None,
    config: Config = None,
    log_format: Format = "console",
    log_level: Level = "info",
    quiet: Quiet = False,
) -> None:
    """Give dead letters up, and what is queued of a --group, or held for a --code.

    At least one choice is required. What is dismissed stays counted, and is kept in
    dismissed.jsonl.
    """
    options = {"records": _mapping(field, constant, ignore_unknown, key_field)}
    settings = _settings(config, log_format, log_level, quiet, options, recipe)
    from worker.jobs.dismiss import dismiss as run
    from worker.jobs.engine import Choice

    _exit(_run(run(settings, Choice(reason, code, group, source), out, dry_run=dry_run)))


@_command("check")
def check(
    inputs: Annotated[list[str], typer.Argument(metavar="INPUT", help=INPUTS_HELP)],
    as_json: AsJson = False,
    places: Annotated[
        int,
        typer.Option(
            "--places", min=0, max=1000, help="How many places of each problem JSON lists."
        ),
    ] = 100,
    recipe: Recipe = None,
    field: Fields = None,
    constant: Constants = None,
    ignore_unknown: IgnoreUnknown = False,
    key_field: KeyField = None,
    config: Config = None,
    log_format: Format = "console",
    log_level: Level = "info",
    quiet: Quiet = False,
) -> None:
    """Check all records, and send nothing; no key is needed.

    Every problem is shown, grouped, with file and line.
    """
    options = {"records": _mapping(field, constant, ignore_unknown, key_field)}
    settings = _settings(config, log_format, log_level, quiet, options, recipe)
    from worker.jobs.check import check as run

    _exit(run(settings, inputs, as_json=as_json, places=places))


@_command("status")
def status(
    out: Out = DEFAULT_OUT,
    as_json: AsJson = False,
    config: Config = None,
    log_format: Format = "console",
    log_level: Level = "info",
    quiet: Quiet = False,
) -> None:
    """Show what a job or a queue holds, by state, reason and code, and whether its parts agree."""
    settings = _settings(config, log_format, log_level, quiet)
    from worker.jobs.status import status as run

    _exit(_run(run(settings, out, as_json=as_json)))


@_command("explain")
def explain(
    what: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="CODE",
            help="Error codes, HTTP statuses or reasons of dead letters; none: the whole table.",
        ),
    ] = None,
    verdict: Annotated[
        Verdict | None, typer.Option("--verdict", help="Only codes with this verdict.")
    ] = None,
    find: Annotated[
        str | None, typer.Option("--find", metavar="TEXT", help="Only what contains this text.")
    ] = None,
    as_json: AsJson = False,
    config: Config = None,
    log_format: Format = "console",
    log_level: Level = "info",
    quiet: Quiet = False,
) -> None:
    """Show what error codes mean and what is done about them."""
    _settings(config, log_format, log_level, quiet)
    from worker.jobs.explain import Filter
    from worker.jobs.explain import explain as run

    _exit(run(what or [], Filter(verdict, find), as_json=as_json))


@_command("settings")
def settings(
    base_url: BaseUrl = None,
    rate: Rate = None,
    as_json: AsJson = False,
    config: Config = None,
    log_format: Format = "console",
    log_level: Level = "info",
    quiet: Quiet = False,
) -> None:
    """Show every setting, its value and where it comes from.

    Secrets are shown as `set`, required settings that lack as `missing`.
    """
    loaded = _load(config, log_format, log_level, quiet, _options(base_url, rate))
    from worker.jobs.show_settings import show_settings as run

    _exit(run(loaded, as_json=as_json))


@_command("doctor")
def doctor(
    out: Out = DEFAULT_OUT,
    base_url: BaseUrl = None,
    rate: Rate = None,
    as_json: AsJson = False,
    config: Config = None,
    log_format: Format = "console",
    log_level: Level = "info",
    quiet: Quiet = False,
) -> None:
    """Find out what would keep an import from working: settings, key, service, clock, queue, disk.

    Each thing passes, is warned of or fails, with what to do. At most five calls are made, none
    of which can create anything, and none after a signature was refused.
    """
    _configure_logs(log_format, log_level, quiet)
    from worker.jobs.doctor import doctor as run

    _exit(run(config, _options(base_url, rate), out, as_json=as_json))


@_command("init")
def init(
    input: Annotated[  # noqa: A002 - the name in the usage line
        str | None,
        typer.Argument(metavar="INPUT", help="A file whose records a mapping is proposed for."),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option("--config", metavar="FILE", help="The file to write; else topic-import.toml."),
    ] = None,
    log_format: Format = "console",
    log_level: Level = "info",
    quiet: Quiet = False,
) -> None:
    """Write a settings file with comments: the app, its region, its key file.

    With INPUT, also a mapping that its first records propose, with what will be refused.
    Of a document that is an object, say in the environment where the records are
    (TOPIC_IMPORT_RECORDS__PATH). A file that is there already is never overwritten.
    """
    settings = _settings(None, log_format, log_level, quiet)
    from worker.jobs.init import init as run

    _exit(run(input, config, settings.records))


@_command("simulate")
def simulate(
    host: Annotated[str, typer.Option("--host", help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="0: a free one.")] = 8200,
    quota: Annotated[int, typer.Option("--quota", min=0, help="Calls a second; 0: none.")] = 200,
    latency: Annotated[
        float, typer.Option("--latency", min=0, help="Seconds until the reply.")
    ] = 0.0,
    jitter: Annotated[
        float, typer.Option("--jitter", min=0, help="Delay of the arrival, at most, in seconds.")
    ] = 0.0,
    fault: Annotated[
        list[str] | None,
        typer.Option(
            "--fault",
            metavar="KIND=PROBABILITY",
            help="An error code, 502, html, empty, truncated, reset-before, reset-after or hang.",
        ),
    ] = None,
    config: Config = None,
    log_format: Format = "console",
    log_level: Level = "info",
    quiet: Quiet = False,
) -> None:
    """Serve a local stand-in of the service, strict, with the faults that are asked for.

    It prints the command that imports into it. GET /ledger shows what was created.
    """
    settings = _settings(config, log_format, log_level, quiet)
    from worker.jobs.simulate import Options
    from worker.jobs.simulate import simulate as run

    _exit(_run(run(settings, Options(host, port, quota, latency, jitter, fault or []))))


def _options(base_url: str | None, rate: float | None) -> dict[str, dict[str, Any]]:
    """Return the settings that were given as options, by section and name."""
    options: dict[str, dict[str, Any]] = {"app": {}, "rate": {}}
    if base_url is not None:
        options["app"]["base_url"] = base_url
    if rate is not None:
        options["rate"]["calls_per_second"] = rate
    return options


def _configure_logs(log_format: LogFormat, log_level: LogLevel, quiet: bool) -> None:
    from worker.logs import configure

    configure(log_format, "error" if quiet else log_level)


def _load(
    config: Path | None,
    log_format: LogFormat,
    log_level: LogLevel,
    quiet: bool,
    options: dict[str, dict[str, Any]] | None = None,
    recipe: str | None = None,
) -> "Loaded":
    _configure_logs(log_format, log_level, quiet)
    from worker.logs import logger
    from worker.settings.loading import load_with_origins

    loaded = load_with_origins(config, options=options, recipe=recipe)
    if loaded.file:
        logger().info("settings were read", file=str(loaded.file))
    return loaded


def _mapping(
    fields: list[str] | None,
    constants: list[str] | None,
    ignore_unknown: bool,
    key_field: str | None,
) -> dict[str, Any]:
    """Return the settings of the mapping that were given as options."""
    records: dict[str, Any] = {}
    if fields:
        # A path may hold =, a field does not; a value may hold it, too.
        records["fields"] = dict(_pair(given, given.rpartition("="), "--field") for given in fields)
    if constants:
        records["constants"] = dict(
            _pair(given, given.partition("="), "--set") for given in constants
        )
    if ignore_unknown:
        records["unknown"] = "ignore"
    if key_field is not None:
        records["key_field"] = key_field
    return records


def _pair(given: str, parts: tuple[str, str, str], option: str) -> tuple[str, str]:
    name, _, value = parts
    if not name:
        raise typer.BadParameter(f"{option} {given}: write it as NAME=VALUE")
    return name, value


def _settings(
    config: Path | None,
    log_format: LogFormat,
    log_level: LogLevel,
    quiet: bool,
    options: dict[str, dict[str, Any]] | None = None,
    recipe: str | None = None,
) -> "Settings":
    return _load(config, log_format, log_level, quiet, options, recipe).settings


def _run(job: Coroutine[Any, Any, int]) -> int:
    import asyncio

    new_event_loop: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop
    with suppress(ImportError):
        import uvloop

        new_event_loop = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        return runner.run(job)


def _exit(code: int) -> NoReturn:
    sys.stdout.flush()
    raise typer.Exit(int(code))
