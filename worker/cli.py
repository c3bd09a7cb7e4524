"""Commands, options, exit codes; nothing else. Each command imports only what it needs."""

import sys
from collections.abc import Callable, Coroutine
from contextlib import suppress
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn

import typer

from worker import __version__
from worker.job_directory import DEFAULT_OUT

if TYPE_CHECKING:
    from worker.settings.model import Settings

USAGE = 2
HALTED = 3
INTERRUPTED = 130

app = typer.Typer(
    name="topic-import",
    help="Import topics into Tencent Cloud Chat communities: nothing lost, nothing twice.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

INPUTS_HELP = "JSON Lines, a JSON array, CSV or Parquet, compressed too; - is standard input."
Inputs = Annotated[
    list[str] | None,
    typer.Argument(metavar="INPUT...", help=INPUTS_HELP),
]
Config = Annotated[
    Path | None, typer.Option("--config", help="Settings (TOML); else $TOPIC_IMPORT_CONFIG.")
]
LogFormat = Literal["console", "json"]
LogLevel = Literal["debug", "info", "warning", "error"]
Format = Annotated[LogFormat, typer.Option("--log-format", help="How logs are written.")]
Level = Annotated[LogLevel, typer.Option("--log-level", help="The lowest level that is logged.")]
Out = Annotated[Path, typer.Option("--out", help="The directory of the job.")]
Adopt = Annotated[
    bool, typer.Option("--adopt", help="Take over topics that only the result files know.")
]
Reasons = Annotated[
    Literal["invalid", "rejected", "exhausted", "conflict"] | None,
    typer.Option("--reason", help="Only those dead-lettered for this reason."),
]
CodeChoice = Annotated[int | None, typer.Option("--code", help="Only those with this code.")]
GroupChoice = Annotated[str | None, typer.Option("--group", help="Only those of this community.")]
SourceChoice = Annotated[
    str | None, typer.Option("--source", help="Only those read from this path, or path:line.")
]
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


def main() -> NoReturn:
    """Run the command line.

    A mistake of the user ends with a sentence and exit code 2, a queue or a disk that refuses with
    a sentence and exit code 3.
    """
    if isinstance(sys.stdout, TextIOWrapper):
        # A path may hold what the terminal's encoding cannot show.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        from worker.jobs import UsageError
        from worker.queues.contract import JobMismatchError, QueueError, QueueTakenError
        from worker.settings.model import SettingsError
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    try:
        app(standalone_mode=True)
    except (UsageError, SettingsError, QueueTakenError, JobMismatchError) as error:
        _print_error(*error.args)
        sys.exit(USAGE)
    except QueueError as error:
        _print_error(*error.args)
        sys.exit(HALTED)
    except OSError as error:
        if error.filename is None:
            raise
        _print_error(f"{error.filename}: {error.strerror}")
        sys.exit(HALTED)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    sys.exit(0)


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


@app.command()
def backfill(
    inputs: Inputs = None,
    out: Out = DEFAULT_OUT,
    base_url: Annotated[
        str | None, typer.Option("--base-url", help="The service's URL, in place of app.region.")
    ] = None,
    rate: Annotated[
        float | None, typer.Option("--rate", help="Calls a second; 0: no limit.")
    ] = None,
    limit: Annotated[
        int | None, typer.Option("--limit", min=1, help="Read and import at most N records.")
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
) -> None:
    """Import files and stop when all is settled; again with the same --out: continue."""
    options: dict[str, dict[str, Any]] = {"app": {}, "rate": {}}
    if base_url is not None:
        options["app"]["base_url"] = base_url
    if rate is not None:
        options["rate"]["calls_per_second"] = rate
    options["records"] = _mapping(field, constant, ignore_unknown, key_field)
    settings = _settings(config, log_format, log_level, options, recipe)
    if dry_run:
        from worker.jobs.check import check as dry

        _exit(dry(settings, inputs or [], as_json=False))
    from worker.jobs.backfill import Options
    from worker.jobs.backfill import backfill as run

    chosen = Options(inputs or [], out, limit, adopt, show_progress=not no_progress)
    _exit(_run(run(settings, chosen)))


@app.command()
def serve(
    until_empty: Annotated[
        bool, typer.Option("--until-empty", help="Stop when the queue is empty.")
    ] = False,
    out: Out = DEFAULT_OUT,
    adopt: Adopt = False,
    recipe: Recipe = None,
    field: Fields = None,
    constant: Constants = None,
    ignore_unknown: IgnoreUnknown = False,
    key_field: KeyField = None,
    config: Config = None,
    log_format: Format = "console",
    log_level: Level = "info",
) -> None:
    """Import from the queue until SIGTERM, with an endpoint for monitors (admin.listen)."""
    options = {"records": _mapping(field, constant, ignore_unknown, key_field)}
    settings = _settings(config, log_format, log_level, options, recipe)
    from worker.jobs.serve import Options
    from worker.jobs.serve import serve as run

    _exit(_run(run(settings, Options(out, until_empty, adopt))))


@app.command()
def enqueue(
    inputs: Annotated[list[str], typer.Argument(metavar="INPUT...", help=INPUTS_HELP)],
    out: Out = DEFAULT_OUT,
    recipe: Recipe = None,
    field: Fields = None,
    constant: Constants = None,
    ignore_unknown: IgnoreUnknown = False,
    key_field: KeyField = None,
    config: Config = None,
    log_format: Format = "console",
    log_level: Level = "info",
) -> None:
    """Put the records of files into the queue; again: continue, add nothing twice."""
    options = {"records": _mapping(field, constant, ignore_unknown, key_field)}
    settings = _settings(config, log_format, log_level, options, recipe)
    from worker.jobs.enqueue import enqueue as run

    _exit(_run(run(settings, inputs, out)))


@app.command()
def replay(
    reason: Reasons = None,
    code: CodeChoice = None,
    group: GroupChoice = None,
    source: SourceChoice = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only list and count.")] = False,
    out: Out = DEFAULT_OUT,
    recipe: Recipe = None,
    field: Fields = None,
    constant: Constants = None,
    ignore_unknown: IgnoreUnknown = False,
    key_field: KeyField = None,
    config: Config = None,
    log_format: Format = "console",
    log_level: Level = "info",
) -> None:
    """Put dead letters back into the queue after a fix."""
    options = {"records": _mapping(field, constant, ignore_unknown, key_field)}
    settings = _settings(config, log_format, log_level, options, recipe)
    from worker.jobs.engine import Choice
    from worker.jobs.replay import replay as run

    _exit(_run(run(settings, Choice(reason, code, group, source), out, dry_run=dry_run)))


@app.command()
def dismiss(
    reason: Reasons = None,
    code: CodeChoice = None,
    group: GroupChoice = None,
    source: SourceChoice = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only list and count.")] = False,
    out: Out = DEFAULT_OUT,
    recipe: Recipe = None,
    field: Fields = None,
    constant: Constants = None,
    ignore_unknown: IgnoreUnknown = False,
    key_field: KeyField = None,
    config: Config = None,
    log_format: Format = "console",
    log_level: Level = "info",
) -> None:
    """Give dead letters up, and what is queued of a --group, or held for a --code."""
    options = {"records": _mapping(field, constant, ignore_unknown, key_field)}
    settings = _settings(config, log_format, log_level, options, recipe)
    from worker.jobs.dismiss import dismiss as run
    from worker.jobs.engine import Choice

    _exit(_run(run(settings, Choice(reason, code, group, source), out, dry_run=dry_run)))


@app.command()
def check(
    inputs: Annotated[list[str], typer.Argument(metavar="INPUT...", help=INPUTS_HELP)],
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
) -> None:
    """Validate all records, send nothing: every problem, grouped, with file and line."""
    options = {"records": _mapping(field, constant, ignore_unknown, key_field)}
    settings = _settings(config, log_format, log_level, options, recipe)
    from worker.jobs.check import check as run

    _exit(run(settings, inputs, as_json=as_json, places=places))


@app.command()
def status(
    out: Out = DEFAULT_OUT,
    as_json: AsJson = False,
    config: Config = None,
    log_format: Format = "console",
    log_level: Level = "info",
) -> None:
    """Show what a job or queue holds, and whether its queue and files agree."""
    settings = _settings(config, log_format, log_level)
    from worker.jobs.status import status as run

    _exit(_run(run(settings, out, as_json=as_json)))


@app.command()
def explain(
    code: Annotated[int | None, typer.Argument(help="An error code; none: the table.")] = None,
    as_json: AsJson = False,
    config: Config = None,
    log_format: Format = "console",
    log_level: Level = "info",
) -> None:
    """Show what an error code means and what is done about it."""
    _settings(config, log_format, log_level)
    from worker.jobs.explain import explain as run

    _exit(run(code, as_json=as_json))


@app.command()
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
) -> None:
    """Serve a local stand-in of the service, strict, with the faults that are asked for."""
    settings = _settings(config, log_format, log_level)
    from worker.jobs.simulate import Options
    from worker.jobs.simulate import simulate as run

    _exit(_run(run(settings, Options(host, port, quota, latency, jitter, fault or []))))


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
    options: dict[str, dict[str, Any]] | None = None,
    recipe: str | None = None,
) -> "Settings":
    from worker.logs import configure
    from worker.settings.loading import load

    configure(log_format, log_level)
    return load(config, options=options, recipe=recipe)


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
