"""The verbs `serve` and `key`: the model as a service with a chat page, and who may ask it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from visavis.cli.doctor import port_is_free
from visavis.errors import VisavisError

if TYPE_CHECKING:
    from visavis.chat.talker import Talker

console = Console(highlight=False)
_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_ALIASES = ("champion", "challenger")


def serve(
    model: Annotated[
        str | None,
        typer.Option(
            help="Registered version, or a model folder; by default the champion, else the challenger."
        ),
    ] = None,
    runs: Annotated[Path, typer.Option(help="Folder of the runs, if MLflow is local.")] = Path("runs"),
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 8000,
    keys: Annotated[Path | None, typer.Option(help="File of API keys, made by `visavis key`.")] = None,
    open_to_all: Annotated[bool, typer.Option(help="Listen beyond this machine without keys.")] = False,
    page: Annotated[bool, typer.Option(help="Serve the chat page on /.")] = True,
    browser: Annotated[bool, typer.Option(help="Open the chat page in a browser.")] = False,
    consent: Annotated[
        str, typer.Option(help="What a user must agree to before a picture can be uploaded; empty: nothing.")
    ] = "I may use this picture, and whoever is in it agrees.",
    deadline: Annotated[float, typer.Option(min=1, help="Seconds after which an answer is given up.")] = 60.0,
    most_waiting: Annotated[int, typer.Option(min=1, help="Requests that may wait; others get a 429.")] = 64,
    most_together: Annotated[int, typer.Option(min=1, help="Pictures painted in one batch.")] = 16,
    memory_mib: Annotated[int, typer.Option(min=1, help="Room for what was read of chats, in MiB.")] = 512,
    follow: Annotated[
        float, typer.Option(min=0, help="Seconds between looks at the alias; 0: keep the version.")
    ] = 15.0,
    certificate: Annotated[
        Path | None, typer.Option(help="PEM chain that signs content credentials (ES256).")
    ] = None,
    certificate_key: Annotated[Path | None, typer.Option(help="PEM key of the certificate.")] = None,
) -> None:
    """Serve a model: OpenAI's chat and image routes, and a chat page.

    `/v1/chat/completions` and `/v1/images/generations` answer OpenAI's clients, `/docs` explains all routes, `/metrics`
    feeds Prometheus. An alias that moves is followed without a request lost. Ctrl-C or SIGTERM answers what waits.

    Example: `visavis serve` · `visavis serve --host 0.0.0.0 --keys keys.yaml`
    """
    if host not in _LOOPBACK and keys is None and not open_to_all:
        raise VisavisError(
            f"--host {host} lets everybody in", fix="give --keys FILE (`visavis key NAME`), or --open-to-all"
        )
    if not port_is_free(port):
        raise VisavisError(f"port {port} is in use", fix=f"choose another one: --port {port + 1}")
    from visavis.serving.keys import Keys

    known = Keys.read(keys) if keys else Keys()
    with console.status("loading the model"):
        from visavis.serving.app import Service, create_app
        from visavis.serving.engine import Engine
        from visavis.serving.exchange import AliasFollower
        from visavis.serving.provenance import Credentials
        from visavis.serving.watching import Watcher, log_lines, send_traces

        address, version = _chosen(model, runs)
        credentials, watcher = Credentials(certificate, certificate_key), Watcher()
        engine = Engine(
            _talker(address, version, runs, memory_mib),
            version,
            most_waiting=most_waiting,
            most_together=most_together,
            seen=watcher.batch,
        )
    log_lines()
    send_traces()
    service = Service(engine, known, credentials, watcher, _name(address), deadline)
    app = create_app(service)
    if page:
        from visavis.serving.page import mount

        app = mount(app, service, consent)
    follower = None
    if "@" in address and follow:
        follower = AliasFollower(
            engine,
            lambda: _version(address, runs),
            lambda number: _talker(address, number, runs, memory_mib),
            follow,
        )
    where = f"http://{host}:{port}"
    console.print(f"[bold]{address}[/] {f'(version {version}) ' if version else ''}on [bold]{where}[/]")
    console.print(
        f"  page {where}/   routes {where}/docs   Ctrl-C ends it" if page else f"  routes {where}/docs"
    )
    if browser and page:
        _open_when_up(where)
    import uvicorn

    uvicorn.run(
        app, host=host, port=port, log_config=None, access_log=False, timeout_graceful_shutdown=int(deadline)
    )
    if follower is not None:
        follower.close()


def key(
    name: Annotated[str, typer.Argument(help="Of the user, for logs and limits.")],
    keys: Annotated[Path, typer.Option(help="File of keys; made if it does not exist.")] = Path("keys.yaml"),
    requests_per_minute: Annotated[float, typer.Option(min=0.1, help="Requests that are let through.")] = 60,
    concurrent: Annotated[int, typer.Option(min=1, help="Requests at a time.")] = 8,
) -> None:
    """Make an API key for `visavis serve --keys`; it is shown once, only its hash is kept.

    Example: `visavis key olivia --keys keys.yaml`
    """
    from visavis.serving.keys import add_key

    secret = add_key(keys, name, requests_per_minute, concurrent)
    console.print(
        f"{secret}\n[dim]shown this once; {keys} holds its hash, and takes effect at the next start[/dim]"
    )


def _chosen(model: str | None, runs: Path) -> tuple[str, str]:
    """Returns the address that is served and its version; a folder has none."""
    if model is not None:
        return model, _version(model, runs) if model.startswith("models:/") else ""
    failure: VisavisError | None = None
    for alias in _ALIASES:
        try:
            address = f"models:/visavis@{alias}"
            return address, _version(address, runs)
        except VisavisError as error:
            failure = failure or error
    assert failure is not None
    raise failure


def _version(address: str, runs: Path) -> str:
    from visavis.loading import local_tracking_uri, resolve_version

    return resolve_version(address, tracking_uri=local_tracking_uri(runs))


def _name(address: str) -> str:
    return (
        address.removeprefix("models:/").split("@")[0].split("/")[0] if "models:/" in address else "visavis"
    )


def _talker(address: str, version: str, runs: Path, memory_mib: int) -> Talker:
    from transformers.utils.logging import disable_progress_bar

    from visavis.chat.talker import Talker
    from visavis.loading import load, local_tracking_uri

    disable_progress_bar()
    exact = f"models:/{_name(address)}/{version}" if version else address
    return Talker(load(exact, tracking_uri=local_tracking_uri(runs)), memory_mib)


def _open_when_up(where: str) -> None:
    import threading
    import webbrowser

    threading.Timer(2.0, webbrowser.open, [where]).start()
