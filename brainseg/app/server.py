"""Serves the page, and removes everything afterwards."""

from __future__ import annotations

import os
import signal
import socket
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from brainseg.app.guard import LOOPBACK, Guard
from brainseg.errors import MachineError, UsageError
from brainseg.guarded import GuardedReader

if TYPE_CHECKING:
    from fastapi import FastAPI

MOST_UPLOAD = "2gb"  # a file
FONTS = ("system-ui", "sans-serif")
QUIET = {
    "GRADIO_ANALYTICS_ENABLED": "False",
    "GRADIO_RUN_HISTORY": "False",
    "GRADIO_SSR_MODE": "False",
    "GRADIO_MCP_SERVER": "False",
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
}


@contextmanager
def application(
    bundles: Sequence[str], device: str = "auto", hosts: tuple[str, ...] | None = LOOPBACK
) -> Iterator[Guard]:
    """The page as an ASGI application; all that it wrote is gone when the block ends.

    Args:
        bundles: those to choose from, the first one opened at once.
        device: as for `open_bundle`.
        hosts: names under which it may be reached; None for any.

    Raises:
        UsageError: if gradio is not installed, or there is no such bundle or device.
        UntrustedBundleError: as `open_bundle`.
    """
    with (
        GuardedReader() as reader,
        tempfile.TemporaryDirectory(prefix="brainseg-app-", ignore_cleanup_errors=True) as folder,
    ):
        root = Path(folder).resolve()
        # gradio reads these when it is imported: where it keeps uploads, and that it tells nobody of anything
        os.environ.update(QUIET, GRADIO_TEMP_DIR=str(root / "gradio"))
        try:
            import gradio
            from fastapi import FastAPI
        except ImportError:
            raise UsageError("gradio", "is not installed", 'pip install "brainseg[app]"') from None
        from brainseg.app.page import build
        from brainseg.app.visit import MOST_VISITS, Networks, Visits

        uploads = root / "gradio"
        uploads.mkdir()
        networks = Networks(bundles, device)
        threshold = networks.get(bundles[0]).threshold
        visits = Visits(uploads, reader)
        here = Path(__file__).parent
        fonts = [gradio.themes.Font(name) for name in FONTS]
        page = build(networks, visits, uploads, threshold)
        page.state_session_capacity = MOST_VISITS
        page.has_launched = True  # else gradio does not ask where the files lie that a request names
        app: FastAPI = gradio.mount_gradio_app(
            FastAPI(openapi_url=None),
            page,
            path="",
            footer_links=[],
            run_history=False,
            max_file_size=MOST_UPLOAD,
            enable_monitoring=False,
            ssr_mode=False,
            show_error=False,
            theme=gradio.themes.Default(primary_hue="blue", font=fonts, font_mono=fonts),
            css=(here / "page.css").read_text(encoding="utf-8"),
            js=(here / "page.js").read_text(encoding="utf-8"),
        )
        try:
            yield Guard(app, hosts, uploads)
        finally:
            visits.close()


def serve(
    bundles: Sequence[str], host: str, port: int, device: str = "auto", *, ready: Callable[[str], None] = print
) -> None:
    """Serves the page until the process is interrupted.

    Args:
        bundles, device: as for `application`.
        host, port: where to listen; port 0 takes a free one.
        ready: called with the page's address before the first request is answered.

    Raises:
        UsageError, UntrustedBundleError: as `application`.
        MachineError: if the address cannot be listened on.
    """
    with suppress(ValueError):  # SIGTERM, as Ctrl-C, must end the block below, which removes what is there
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    with listening(host, port) as listener, application(bundles, device, hosts_of(host)) as app:
        import uvicorn

        config = uvicorn.Config(
            app,
            log_config=None,
            log_level="critical",
            access_log=False,
            timeout_graceful_shutdown=1,
            server_header=False,
        )
        shown = f"[{host}]" if ":" in host else host
        ready(f"http://{shown}:{listener.getsockname()[1]}")
        uvicorn.Server(config).run(sockets=[listener])


def hosts_of(host: str) -> tuple[str, ...] | None:
    """The names under which a page that listens on `host` may be reached: None for any, off loopback."""
    return LOOPBACK if host in LOOPBACK else None


@contextmanager
def listening(host: str, port: int) -> Iterator[socket.socket]:
    """A socket that listens there.

    Raises:
        MachineError: if the address is taken, or not this machine's.
    """
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.create_server((host, port), family=family)
    except (OSError, OverflowError) as error:
        cause = f"cannot be listened on ({getattr(error, 'strerror', None) or error})"
        raise MachineError(f"{host}:{port}", cause, "choose another --port, or --host") from None
    with listener:
        yield listener
