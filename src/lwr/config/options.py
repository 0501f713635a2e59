"""Every option of LWR: its name, place, default, meaning and how its text becomes a value.

This table is the only source: reading, the errors for unknown names, `lwr config show`, the sample files and the
reference page are made from it. Knows no file and no environment; the options that only one kind of manager takes
come from `lwr.managers.manager`.
"""

from __future__ import annotations

from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Any

from lwr.config.option import (
    APP,
    MANAGER,
    SERVER,
    Option,
    Unserved,
    boolean,
    choice,
    seconds,
    whole,
    words,
)
from lwr.config.queue_options import QUEUE_OPTIONS


def _only_galaxy(text: str) -> str:
    if text.lower() == "uuid":
        raise ValueError("is not in this version: jobs keep the ids that their clients give them.")
    return choice("galaxy")(text)


HOST = Option(
    "host", SERVER, str, "localhost",
    "Name or address to listen on. `0.0.0.0` is every IPv4 address of the machine; anything but the loopback "
    "addresses needs a `private_key`. `none`: no port is opened at all, and jobs come over the message queue only.",
    example="0.0.0.0",  # noqa: S104  an example in the samples
)  # fmt: skip
PORT = Option("port", SERVER, whole(0, 65535), "8913", "TCP port to listen on; 0 takes a free one.")
SSL_PEM = Option(
    "ssl_pem", SERVER, str, "",
    "PEM file with the certificate, its chain and the private key, for https. `*` makes a self-signed certificate "
    "and keeps it beside this file as `host.pem`.",
    example="*",
)  # fmt: skip
STAGING_DIRECTORY = Option(
    "staging_directory", APP, str, "lwr_staging",
    "Directory below which each job gets its own. Made if missing.",
)  # fmt: skip
PRIVATE_KEY = Option(
    "private_key", APP, str, "",
    "The secret that clients must send. Who knows it may run commands as the user of this server: make it long and "
    "random, use https, and let nobody else read this file (`chmod 600`).",
    secret=True, aliases=("private_token",),
)  # fmt: skip
QUERY_SECRET = Option(
    "query_secret", APP, boolean, "true",
    "Whether the secret may stand in the URL (`?private_key=...`), as all Galaxy clients send it. With `false` only "
    "`Authorization: Bearer` counts.",
)  # fmt: skip
JOB_MANAGERS_CONFIG = Option(
    "job_managers_config", APP, str, "",
    "File that defines the job managers. Without it there is one, `_default_`, which runs one job at a time on this "
    "machine.",
    example="job_managers.ini",
)  # fmt: skip
PERSISTENCE_DIRECTORY = Option(
    "persistence_directory", APP, str, "persisted_data",
    "Directory of the database of jobs; on a local disk, and not inside a staging directory. Made if missing.",
)  # fmt: skip
ASSIGN_IDS = Option(
    "assign_ids", APP, _only_galaxy, "galaxy",
    "Who names jobs. `galaxy`: the client does. (`uuid` is not in this version.)",
)  # fmt: skip
DEBUG = Option(
    "debug", APP, boolean, "false",
    "With `true` the directories of jobs are never removed, so that one can look into them.",
)  # fmt: skip
LOG_FORMAT = Option(
    "log_format", APP, choice("console", "json"), "console",
    "Form of the log: `console` for people, `json` for programs (one object a line).",
)  # fmt: skip
LOG_LEVEL = Option(
    "log_level", APP, choice("debug", "info", "warning", "error"), "info", "The least important level that is logged.",
)  # fmt: skip
LOG_FILE = Option(
    "log_file", APP, str, "",
    "File to append the log to. Without it the log goes to the standard error stream, and of a daemon to `lwr.log` "
    "beside this file.",
    example="lwr.log",
)  # fmt: skip
SHUTDOWN_GRACE = Option(
    "shutdown_grace_s", APP, seconds, "10",
    "How long a stopping server waits for requests in flight. Jobs run on in any case.", "seconds",
)  # fmt: skip
FAILED_JOB_RETENTION = Option(
    "failed_job_retention_s", APP, seconds, "604800",
    "Directories of jobs that ended failed, lost or cancelled, and that no client cleaned, are removed after this "
    "time.", "seconds",
)  # fmt: skip
DELIVERED_RETENTION = Option(
    "delivered_job_retention_s", APP, seconds, "86400",
    "Directories of jobs that came over the message queue, where nobody can ask to clean them, are removed this long "
    "after the job is complete, its results are delivered and its client was told.", "seconds",
)  # fmt: skip
RECORD_RETENTION = Option(
    "record_retention_s", APP, seconds, "2592000",
    "The record of a cleaned job (its states, times and reason) is kept this long.", "seconds",
)  # fmt: skip
STAGING_THREADS = Option(
    "staging_threads_count", APP, whole(1, 64), "2", "Threads that prepare jobs and collect their results.",
)  # fmt: skip
STAGING_SLOTS = Option(
    "staging_slots_count", APP, whole(1, 256), "6",
    "How many files this server moves itself at a time (`remote_*` actions), for all jobs together; one job takes all "
    "but one. Two more are for small files only, so that these never wait behind large ones.",
)  # fmt: skip
STAGING_SLOTS_PER_HOST = Option(
    "staging_slots_per_host_count", APP, whole(1, 256), "4", "How many of them to or from one host.",
)  # fmt: skip
STAGING_TIMEOUT = Option(
    "staging_timeout_s", APP, seconds, "21600",
    "How long the server tries to move a job's files, before the job and again after it, while what goes wrong may "
    "pass. Then the job fails, with the last reason.", "seconds",
)  # fmt: skip
STAGING_SCHEMES = Option(
    "staging_url_schemes", APP, words, "http https",
    "The schemes of URLs that this server may fetch or deliver files by, with blanks between them.",
)  # fmt: skip
STAGING_HOSTS = Option(
    "staging_url_hosts", APP, words, "",
    "The hosts that it may fetch or deliver files from and to, with blanks between them; `*` stands for any text. Any "
    "host if not set.",
    example="galaxy.example.org *.storage.example.org",
)  # fmt: skip
STAGING_NETWORKS = Option(
    "staging_url_networks", APP, words, "",
    "The networks (`10.0.0.0/8`) that the addresses of these hosts must be in, looked up when a connection is made. "
    "Any if not set.",
    example="192.0.2.0/24 2001:db8::/32",
)  # fmt: skip
REMOTE_COPY_ROOTS = Option(
    "remote_copy_roots", APP, words, "",
    "The directories below which `remote_copy` may read and write, with blanks between them. Any if not set: jobs can "
    "read and write there too.",
    example="/galaxy/files /galaxy/jobs",
)  # fmt: skip
FILE_CACHE_DIR = Option(
    "file_cache_dir", APP, str, "",
    "Directory in which the contents of input files are kept, so that one that several jobs use travels once. Best on "
    "the disk of the staging_directory: files are then linked into jobs and not copied. Made if missing. No cache if "
    "not set.",
    example="file_cache",
)  # fmt: skip
FILE_CACHE_SIZE = Option(
    "file_cache_max_bytes", APP, whole(0, 2**63 - 1), str(50 * 1024**3),
    "How large that cache may grow. What was used longest ago goes first, and never what a job uses. 0 for no limit.",
    "bytes",
)  # fmt: skip
MAXIMUM_UPLOAD = Option(
    "maximum_upload_bytes", APP, whole(0, 2**63 - 1), "0", "The largest file that is accepted; 0 for any.", "bytes",
)  # fmt: skip

TYPE = Option(
    "type", MANAGER, str, "", "Required. The kind of the manager; the kinds and their own options follow below.",
    example="queued_python",
)  # fmt: skip
M_STAGING_DIRECTORY = Option(
    "staging_directory", MANAGER, str, "", "Directory of this manager's jobs; from server.ini if not set.",
)  # fmt: skip
M_ASSIGN_IDS = Option("assign_ids", MANAGER, _only_galaxy, "", "As in server.ini, for this manager only.")
M_DEBUG = Option("debug", MANAGER, boolean, "", "As in server.ini, for this manager only.")
GALAXY_HOME = Option(
    "galaxy_home", MANAGER, str, "",
    "Root of a Galaxy on this machine, for tools that need its code: its `lib` goes to the jobs' PYTHONPATH. The "
    "environment variable GALAXY_HOME if not set; `none` for none.",
    example="/srv/galaxy",
)  # fmt: skip
GALAXY_CONFIG_FILE = Option(
    "galaxy_config_file", MANAGER, str, "",
    "Galaxy's configuration file here, told to clients whose jobs set metadata on this machine.",
)  # fmt: skip
GALAXY_DATASET_FILES_PATH = Option(
    "galaxy_dataset_files_path", MANAGER, str, "",
    "Galaxy's directory of datasets here, told to clients whose jobs set metadata on this machine.",
)  # fmt: skip
GALAXY_DATATYPES_CONFIG_FILE = Option(
    "galaxy_datatypes_config_file", MANAGER, str, "",
    "Galaxy's file of datatypes here, told to clients whose jobs set metadata on this machine.",
)  # fmt: skip
GALAXY_VIRTUAL_ENV = Option(
    "galaxy_virtual_env", MANAGER, str, "", "Told to clients: the virtualenv of the Galaxy of `galaxy_home`.",
)  # fmt: skip
ENV = Option(
    "env_*", MANAGER, str, "",
    "An environment variable for all jobs of this manager, upper and lower case as written here; it wins over "
    "what the client sends.",
    example="env_TMPDIR = /scratch",
)  # fmt: skip

#: In the order of the samples and of the reference.
SERVER_OPTIONS: tuple[Option[Any], ...] = (
    HOST, PORT, SSL_PEM, PRIVATE_KEY, QUERY_SECRET, STAGING_DIRECTORY, PERSISTENCE_DIRECTORY, JOB_MANAGERS_CONFIG,
    ASSIGN_IDS, DEBUG, LOG_FORMAT, LOG_LEVEL, LOG_FILE, SHUTDOWN_GRACE, STAGING_THREADS, STAGING_SLOTS,
    STAGING_SLOTS_PER_HOST, STAGING_TIMEOUT, STAGING_SCHEMES, STAGING_HOSTS, STAGING_NETWORKS, REMOTE_COPY_ROOTS,
    FILE_CACHE_DIR, FILE_CACHE_SIZE, MAXIMUM_UPLOAD, FAILED_JOB_RETENTION, DELIVERED_RETENTION,
    RECORD_RETENTION, *QUEUE_OPTIONS,
)  # fmt: skip
MANAGER_OPTIONS: tuple[Option[Any], ...] = (
    TYPE, M_STAGING_DIRECTORY, M_ASSIGN_IDS, M_DEBUG, ENV, GALAXY_HOME, GALAXY_VIRTUAL_ENV, GALAXY_CONFIG_FILE,
    GALAXY_DATASET_FILES_PATH, GALAXY_DATATYPES_CONFIG_FILE,
)  # fmt: skip

#: Options of server.ini that this version does not act on.
UNSERVED_OPTIONS = (
    Unserved(("tool_config_file", "tool_config_files"), "the white-list of tools", later=True),
    Unserved(("tool_dependency_dir", "dependency_resolvers_config_file"), "tool dependencies", later=True),
    Unserved(("job_metrics_config_file",), "job metrics", later=True),
    Unserved(("object_store_*",), "Galaxy has no client for the object store of LWR any more; nothing replaces it."),
    Unserved(("use", "paste.app_factory"), "LWR is its own web server and needs no Paste; the line can go."),
    Unserved(
        ("use_threadpool", "threadpool_*", "daemon_threads", "socket_timeout", "request_queue_size"),
        "it was for Paste's web server; LWR is its own, and the line can go.",
    ),
)  # fmt: skip
#: Options of job_managers.ini that this version does not act on.
UNSERVED_MANAGER_OPTIONS = (
    Unserved(("min_polling_interval", "job_name_template"), "submitting to a scheduler", later=True),
)  # fmt: skip
#: Sections of an old server.ini that nothing reads any more.
UNSERVED_SECTIONS = (
    Unserved(
        ("uwsgi", "circus", "watcher:*", "socket:*"), "LWR is its own web server, of one process; the section can go."
    ),
    Unserved(
        ("loggers", "handlers", "formatters", "logger_*", "handler_*", "formatter_*"),
        "log_format, log_level and log_file in [app:main] replace it.",
    ),
)


def known(name: str, section: str = "") -> Option[Any] | None:
    """The option of that name or alias, under that name if it is one of a family; with `section`, only from there."""
    for option in SERVER_OPTIONS:
        if section in ("", option.section):
            if name in option.names:
                return option
            if option.name.endswith("*") and fnmatchcase(name, option.name):
                return replace(option, name=name)
    return None
