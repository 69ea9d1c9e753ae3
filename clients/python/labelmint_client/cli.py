"""The command `labelmint`."""

import sys
from collections.abc import Sequence

from labelmint_client._admin import AdminClient
from labelmint_client._commands.administering import administer
from labelmint_client._commands.arguments import Arguments, parse_arguments
from labelmint_client._commands.demo import run_demo
from labelmint_client._commands.describing import model_text, models_text
from labelmint_client._commands.generating import generate_dataset
from labelmint_client._commands.printing import say
from labelmint_client._commands.probing import wait_for_health
from labelmint_client._commands.settings import GenerateSettings
from labelmint_client._errors import ClientError, ScanLimitError
from labelmint_client._retry import RetryPolicy
from labelmint_client._sync import Client
from labelmint_client._writers.journal import JOURNAL_NAME

_RETRY = RetryPolicy(connect_attempts=3)
"""Whoever mistyped a port wants to know at once; scripts wait for a start with `labelmint health --wait-s`."""
_FAILED = 1
_INTERRUPTED = 130
_UNREAD = 141
"""What a shell says of a command that SIGPIPE ended."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        argv: Arguments without the program's name; None for those of the process.

    Returns:
        Exit status: 0 if all went well, 1 after an error, 130 after an interruption, 141 if nobody reads what it
        prints. A misspelt command line ends the process with 2.
    """
    try:
        return _run(parse_arguments(sys.argv[1:] if argv is None else argv))
    except ClientError as error:
        _complain(str(error), error)
        return _FAILED
    except KeyboardInterrupt as error:
        _complain("interrupted", error)
        return _INTERRUPTED
    except BrokenPipeError:
        return _UNREAD


def _run(arguments: Arguments) -> int:
    match arguments.command:
        case "models":
            with _client(arguments) as client:
                say(models_text(client, as_json=arguments.as_json))
        case "show":
            with _client(arguments) as client:
                say(model_text(client, arguments.model, as_json=arguments.as_json))
        case "health":
            return _ask_for_health(arguments)
        case "generate":
            assert arguments.generate is not None
            _generate(arguments, arguments.generate)
        case "demo":
            assert arguments.demo is not None
            run_demo(arguments.demo)
        case "admin":
            assert arguments.admin is not None
            security, timeout_s = arguments.security, arguments.admin.timeout_s
            with AdminClient(
                arguments.address,
                timeout_s=timeout_s,
                tls=security.tls,
                token=security.token,
                token_file=security.token_file,
            ) as client:
                say(administer(client, arguments.admin))
    return 0


def _ask_for_health(arguments: Arguments) -> int:
    is_serving, text = wait_for_health(
        arguments.address, arguments.model, arguments.timeout_s, arguments.security.tls, wait_s=arguments.wait_s
    )
    if is_serving:
        say(text)
        return 0
    print(text, file=sys.stderr)
    return _FAILED


def _generate(arguments: Arguments, settings: GenerateSettings) -> None:
    try:
        with _client(arguments) as client:
            outcome = generate_dataset(client, settings)
    except (ClientError, KeyboardInterrupt) as error:
        if (settings.out / JOURNAL_NAME).exists():
            error.add_note(f"{settings.out} is unfinished; the same command with --resume goes on")
        elif isinstance(error, ScanLimitError) and error.next_index is not None:
            error.add_note(
                f"nothing was written; with --start-index {error.next_index} it would go on where it gave up"
            )
        raise
    say(outcome.text())


def _client(arguments: Arguments) -> Client:
    security = arguments.security
    return Client(
        arguments.address, tls=security.tls, token=security.token, token_file=security.token_file, retry=_RETRY
    )


def _complain(text: str, error: BaseException) -> None:
    for line in (text, *getattr(error, "__notes__", ())):
        print(f"labelmint: {line}", file=sys.stderr)
