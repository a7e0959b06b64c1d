r"""Panel, where it is installed, and its server."""

from collections.abc import Callable
from typing import Any

from pyro_aevb.errors import UsageError


def found() -> Any:
    r"""The package Panel.

    Raises:
        UsageError: It is not installed.
    """
    try:
        import panel
    except ImportError:
        raise UsageError("the explorer needs panel: pip install panel") from None
    return panel


def serve(
    make: Callable[[], Any],
    title: str,
    address: str,
    port: int,
    no_browser: bool,
    said: Callable[[str], None],
) -> None:
    r"""Show pages in a browser until the process is stopped; each browser has one of its own.

    Arguments:
        make: Makes a page.
        title: What the browser calls it.
        address: Where it listens; ``localhost`` is this machine alone.
        port: Of the server; 0 is any that is free.
        no_browser: Do not open one.
        said: Told where the page is.

    Raises:
        UsageError: Panel is not installed, or the address or the port cannot be used.
    """
    panel = found()
    if not 0 <= port < 1 << 16:
        raise UsageError(f"--port is {port}; it must lie between 0 and 65535")
    try:
        server = panel.io.server.get_server(make, port=port, address=address, title=title)
    except OSError as error:
        raise UsageError(
            f"--address {address} with --port {port} cannot be used: {error.strerror}"
        ) from error
    said(f"http://{address}:{server.port}")
    if not no_browser:
        server.show("/")
    server.run_until_shutdown()
