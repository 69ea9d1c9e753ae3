"""The command `labelmint`."""

import sys
from collections.abc import Sequence

from labelmint_client._admin import AdminClient
from labelmint_client._commands.administering import administer
from labelmint_client._commands.arguments import Arguments, parse_arguments
from labelmint_client._commands.demo import run_demo
from labelmint_client._commands.describing import model_text, models_text
from labelmint_client._commands.generating import generate_dataset
from labelmint_client._commands.probing import wait_for_health
from labelmint_client._commands.settings import DemoSettings, GenerateSettings
from labelmint_client._errors import ClientError
from labelmint_client._security import token_from_environment
from labelmint_client._sync import Client
from labelmint_client._writers.journal import JOURNAL_NAME

_FAILED = 1
_INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        argv: Arguments without the program's name; None for those of the process.

    Returns:
        Exit status: 0 if all went well, 1 after an error, 130 after an interruption. A misspelt command line ends the
        process with 2.
    """
    arguments = parse_arguments(sys.argv[1:] if argv is None else argv)
    try:
        match arguments.command:
            case "models":
                with _client(arguments) as client:
                    print(models_text(client, as_json=arguments.as_json))
            case "show":
                with _client(arguments) as client:
                    print(model_text(client, arguments.model, as_json=arguments.as_json))
            case "health":
                is_serving, text = wait_for_health(
                    arguments.address,
                    arguments.model,
                    arguments.timeout_s,
                    arguments.security.tls,
                    wait_s=arguments.wait_s,
                )
                print(text, file=sys.stdout if is_serving else sys.stderr)
                return 0 if is_serving else _FAILED
            case "generate":
                assert arguments.generate is not None
                with _client(arguments) as client:
                    print(generate_dataset(client, arguments.generate).text())
            case "demo":
                assert arguments.demo is not None
                run_demo(arguments.demo)
            case "admin":
                assert arguments.admin is not None
                with _admin_client(arguments, arguments.admin.timeout_s) as client:
                    print(administer(client, arguments.admin))
    except ClientError as error:
        print(f"labelmint: {error}", file=sys.stderr)
        _point_at_rest(arguments.generate or arguments.demo)
        return _FAILED
    except KeyboardInterrupt:
        print("labelmint: interrupted", file=sys.stderr)
        _point_at_rest(arguments.generate or arguments.demo)
        return _INTERRUPTED
    return 0


def _client(arguments: Arguments) -> Client:
    security = arguments.security
    token = token_from_environment() if security.token_file is None else None
    return Client(arguments.address, tls=security.tls, token=token, token_file=security.token_file)


def _admin_client(arguments: Arguments, timeout_s: float) -> AdminClient:
    security = arguments.security
    token = token_from_environment() if security.token_file is None else None
    return AdminClient(
        arguments.address, timeout_s=timeout_s, tls=security.tls, token=token, token_file=security.token_file
    )


def _point_at_rest(settings: GenerateSettings | DemoSettings | None) -> None:
    """Tell where an unfinished data set lies and how to finish it."""
    if isinstance(settings, GenerateSettings) and (settings.out / JOURNAL_NAME).exists():
        print(f"labelmint: {settings.out} is unfinished; the same command with --resume goes on", file=sys.stderr)
