"""The configuration: server.ini, job_managers.ini and the environment become frozen, validated values.

`load` reads, `Config` is the result; `options` is the one table of all options, from which `make generate` makes the
sample files and the reference page. Must not make or open anything that it describes.
"""

from lwr.config.load import ENVIRONMENT_PREFIX, load
from lwr.config.model import Config, ManagerConfig, is_loopback
from lwr.config.values import Setting

__all__ = [
    "ENVIRONMENT_PREFIX",
    "Config",
    "ManagerConfig",
    "Setting",
    "is_loopback",
    "load",
]
