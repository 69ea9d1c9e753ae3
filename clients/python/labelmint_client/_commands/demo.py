"""`labelmint demo`: a server of the embedded model, a data set streamed from it, and a contact sheet."""

from labelmint_client._commands.generating import generate_dataset
from labelmint_client._commands.local_server import LocalServer
from labelmint_client._commands.printing import say
from labelmint_client._commands.settings import DemoSettings, GenerateSettings, SelectionSettings
from labelmint_client._errors import ServerFaultError
from labelmint_client._sync import Client
from labelmint_client._writers.layout import CONTACT_SHEET_NAME


def run_demo(settings: DemoSettings) -> None:
    """Start a server, stream a data set, stop the server.

    Args:
        settings: What to show.

    Raises:
        ClientError: A step failed; the server is stopped all the same.
    """
    flags = [] if settings.bundle is None else ["--bundle", str(settings.bundle)]
    server = LocalServer(flags, start_timeout_s=settings.start_timeout_s, stop_timeout_s=settings.stop_timeout_s)
    try:
        say("starting the server ...")
        address = server.start()
        with Client(address) as client:
            [model] = client.list_models()
            say(f"serving {model.name} at {address}")
            outcome = generate_dataset(client, _generate_settings(settings, model.name))
        say(outcome.text())
        say(f"contact sheet: {settings.out / CONTACT_SHEET_NAME}")
    finally:
        status = server.stop()
    if status:
        raise ServerFaultError(f"the server did not stop cleanly: its exit status is {status}; see its messages above")
    say("server stopped cleanly")


def _generate_settings(settings: DemoSettings, model: str) -> GenerateSettings:
    return GenerateSettings(
        model=model,
        out=settings.out,
        formats=("png", "coco"),
        selection=SelectionSettings(seed=settings.seed, count=settings.count),
        contact_sheet=True,
        overwrite=True,
        progress=settings.progress,
    )
