"""The validated configuration: frozen values that the rest of LWR is built from. Knows no file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from ipaddress import ip_address
from pathlib import Path

from lwr.config.queue import QueueConfig
from lwr.config.values import Setting
from lwr.managers.manager import JobManager, ManagerKind, Site


@dataclass(frozen=True, slots=True)
class ManagerConfig:
    """A section of job_managers.ini.

    Args:
        options: the parsed values of the kind's own options, by name.
        system_properties: what clients are told of this machine (`galaxy_home`, ...), without the separator.
    """

    name: str
    type: str
    kind: ManagerKind
    staging_directory: str
    debug: bool = False
    options: Mapping[str, object] = field(default_factory=dict, repr=False)
    site: Site = field(default_factory=Site, repr=False)
    system_properties: Mapping[str, str] = field(default_factory=dict)

    def build(self) -> JobManager:
        """Make the manager, not started. Raises ConfigError where its options cannot work on this machine."""
        return self.kind.build(self.name, self.options, self.site)


@dataclass(frozen=True, slots=True)
class Config:
    """Everything that was configured. Paths are absolute; nothing of it was made or opened yet.

    Args:
        directory: of server.ini, or the working directory without one; what relative paths started from.
        host: empty to serve no HTTP.
        private_key: empty when every client on this machine is let in.
        ssl_pem: empty for http, `*` or a path.
        queue: None when jobs come over HTTP only.
        managers: by name, at least one, in the order of the file.
        settings: each option with its value and origin.
        notices: sentences about retired options and unsafe files, to be shown at start.
    """

    directory: Path
    host: str
    port: int
    ssl_pem: str
    private_key: str = field(repr=False)
    query_secret: bool
    staging_directory: str
    persistence_directory: str
    debug: bool
    log_format: str
    log_level: str
    log_file: str
    shutdown_grace_s: float
    failed_job_retention_s: float
    delivered_job_retention_s: float
    record_retention_s: float
    staging_threads_count: int
    staging_slots_count: int
    staging_slots_per_host_count: int
    staging_timeout_s: float
    staging_url_schemes: tuple[str, ...]
    staging_url_hosts: tuple[str, ...]
    staging_url_networks: tuple[str, ...]
    remote_copy_roots: tuple[str, ...]
    file_cache_dir: str
    file_cache_max_bytes: int
    maximum_upload_bytes: int
    managers: Mapping[str, ManagerConfig]
    queue: QueueConfig | None = None
    settings: tuple[Setting, ...] = field(default=(), repr=False)
    notices: tuple[str, ...] = ()

    @property
    def secrets(self) -> tuple[str, ...]:
        """What must not appear in any log: the secret of clients and the passwords for the broker."""
        logins = [place.login for place in self.queue.broker.places if place.login] if self.queue else []
        return tuple(filter(None, (self.private_key, *(password for _, password in logins))))

    @property
    def serves_http(self) -> bool:
        return bool(self.host)


@lru_cache(maxsize=64)  # asked for the Host of every request
def is_loopback(host: str) -> bool:
    """Whether only programs on this machine can reach a server on this host."""
    name = host.strip("[]").lower()
    if name == "localhost":
        return True
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return False
