"""The server of `smolvlm serve` on Ray Serve: replicas that come and go with the load, each with an engine of its own.

    serve run smolvlm.scale.ray_serve:app model=256m max_replicas=4
    serve deploy examples/ray_serve.yaml

Serve's proxies hand each request to a replica, and what answers there is the application of `smolvlm serve`, whole: its
fair queue, its batch, its caches and its limits, per replica. Needs `pip install "smolvlm[ray-serve]"`.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from smolvlm.engines.native_engine import THREADS_VARIABLE
from smolvlm.errors import EngineError, MissingExtraError, ParamsError
from smolvlm.hub import resolve
from smolvlm.scale.replica_options import ReplicaOptions
from smolvlm.serve.api.keys import KeyRing
from smolvlm.serve.config import PREFIX, ServeConfig
from smolvlm.vlm import load

if TYPE_CHECKING:
    from ray.serve import Application
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

_OF_SERVE = ("host", "port", "head_timeout_s")  # Serve listens
_CONSTRUCTOR_TRIES = 3
_LOOK_S = 0.05
_SPARE_S = 5.0  # for closing the engine and the decoding processes after the last answer


class Replica:
    """One server in an actor of Ray. Raises what `smolvlm.load` and `create_app` raise."""

    def __init__(self, config: ServeConfig) -> None:
        os.environ[THREADS_VARIABLE] = str(_threads())  # before the engine is made: replicas of one machine share it
        try:
            from smolvlm.serve.app import create_app
            from smolvlm.serve.logs import log_as_json
        except ImportError as error:
            raise _missing(error) from None
        log_as_json(config.log_level)
        assert config.model is not None, "`app` refuses a deployment without a model"
        model = load(config.model, adapter=config.adapter, engine=config.engine, device=config.device, dtype=config.dtype)
        application, self._found = create_app(model, config)
        self._application = Doorway(application, uploads=config.files_folder is not None)

    def __serve_build_asgi_app__(self) -> ASGIApp:
        """What Serve calls with every request, and whose lifespan it runs."""
        return self._application

    async def check_health(self) -> None:
        """Raises what keeps the replica from answering. Serve sends requests after the first call: it waits for the warm-up."""
        while not self._found.backend.ready and self._found.failed is None:
            await asyncio.sleep(_LOOK_S)
        if self._found.failed is not None:
            raise self._found.failed
        if not self._found.backend.scheduler.alive:
            raise EngineError("the engine's thread has ended.")


class Doorway:
    """Between Serve and the application: paths as the application knows them, and no uploads without a place for them."""

    def __init__(self, application: ASGIApp, *, uploads: bool) -> None:
        self._application, self._uploads = application, uploads

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_on(message: Message) -> None:
            if message["type"] == "http.response.start":  # the proxy names the request, by the name that it gave it
                message["headers"] = [h for h in message.get("headers", ()) if h[0] != b"x-request-id"]
            await send(message)

        if scope["type"] == "http":
            # The gatekeeper asks for a key by the path, which must be the one that is routed: without the route prefix, and
            # with no root_path that the framework would take off once more.
            path = scope["path"].removeprefix(scope.get("root_path", "")) or "/"
            scope = {**scope, "path": path, "root_path": ""}
            if not self._uploads and path.startswith("/v1/files"):
                await _refuse_upload(scope, receive, send)
                return
        await self._application(scope, receive, send_on)


async def _refuse_upload(scope: Scope, receive: Receive, send: Send) -> None:
    from smolvlm.serve.api.sse import PlainJSON
    from smolvlm.serve.errors import ServeError

    error = ServeError(
        400,
        "this deployment keeps no uploads, for another replica would not find them: send media as data URLs, "
        "or give the deployment a files_folder that all replicas share.",
        code="no_uploads",
    )
    await PlainJSON(error.body(), error.status, error.headers)(scope, receive, send)


def app(args: dict[str, Any]) -> Application:
    """The application of `serve run smolvlm.scale.ray_serve:app NAME=VALUE...` and of `args` in a Serve config file.

    args: settings of `ServeConfig` and of `ReplicaOptions` by name, as text or typed, and `config`, a TOML file of settings.
    Raises ParamsError for what is unknown or out of range and for unusable keys, ModelNotFoundError, MissingExtraError
    without Ray Serve.
    """
    options, config = read_arguments(args)
    # Here, where somebody sees it: what fails in a replica stands in a log, and Serve says only that it failed.
    resolve(str(config.model))
    if config.keys_file is not None:
        KeyRing(Path(config.keys_file))
    try:
        from ray import serve
    except ImportError as error:
        raise _missing(error) from None
    deployment = serve.deployment(
        ray_actor_options={"num_cpus": options.replica_cpus, "num_gpus": options.replica_gpus},
        autoscaling_config=options.autoscaling(config),
        # A replica takes what its batch and its queue hold, so that the queue that is fair by key is the one that counts;
        # what finds all replicas full waits in the proxies for a new one, as much again as one queue, and then gets 429.
        max_ongoing_requests=config.max_running + config.max_waiting,
        max_queued_requests=config.max_waiting,
        backpressure_config={"status_code": 429, "retry_after_s": 1.0},
        graceful_shutdown_timeout_s=config.drain_s + _SPARE_S,
        max_constructor_retry_count=_CONSTRUCTOR_TRIES,
        **options.routing(),
    )
    return deployment(serve.ingress()(Replica)).bind(_from_anywhere(config))


def read_arguments(args: Mapping[str, Any], environ: Mapping[str, str] = os.environ) -> tuple[ReplicaOptions, ServeConfig]:
    """What `app` was given, else what the environment says, else the TOML file. Raises ParamsError."""
    ours = {name: value for name, value in args.items() if name in ReplicaOptions.model_fields}
    settings = {name: value for name, value in args.items() if name not in ours and name != "config"}
    if taken := sorted(set(settings) & set(_OF_SERVE)):
        raise ParamsError(f"{', '.join(taken)}: Ray Serve itself listens; see http_options in its config file.")
    known = {f.name for f in fields(ServeConfig)} - set(_OF_SERVE)
    if unknown := sorted(set(settings) - known):
        names = ", ".join(sorted([*known, *ReplicaOptions.model_fields, "config"]))
        raise ParamsError(f"{', '.join(unknown)}: no argument of the deployment; the arguments are {names}.")
    # `serve run` gives everything as text, and text is what the environment has too.
    texts = {name: value for name, value in settings.items() if isinstance(value, str)}
    typed = {name: value for name, value in settings.items() if name not in texts}
    named = {f"{PREFIX}{name.upper()}": value for name, value in texts.items()}
    config = ServeConfig.gather(typed, args.get("config"), {**environ, **named})
    if config.model is None:
        raise ParamsError("name the model that is to be served: model=256m, or a folder that every machine has.")
    return ReplicaOptions.read(ours), config


def _from_anywhere(config: ServeConfig) -> ServeConfig:
    """With whole paths: a replica works in another folder than whoever deploys it."""
    paths = {name: path for name in ("adapter", "keys_file", "files_folder") if (path := getattr(config, name)) is not None}
    if os.path.isdir(os.path.expanduser(str(config.model))):
        paths["model"] = config.model
    return replace(config, **{name: os.path.abspath(os.path.expanduser(path)) for name, path in paths.items()})


def _threads() -> int:
    """As many as the processors that Ray reserved for this replica."""
    import ray

    context: Any = ray.get_runtime_context()
    return max(1, int(context.get_assigned_resources().get("CPU", 1)))


def _missing(error: ImportError) -> ImportError:
    """What to say of a part that is not installed; `error` itself where it is ours that is missing."""
    if error.name and error.name.startswith("smolvlm"):
        return error
    return MissingExtraError("smolvlm.scale.ray_serve", "ray-serve")
