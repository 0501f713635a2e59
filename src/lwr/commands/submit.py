"""`lwr submit`: one job from a set-up message on the command line; its status goes to the queue (messaging.md, 9)."""

from __future__ import annotations

import argparse
import base64
import binascii
import contextlib
import os
import shutil
import signal
import sys
import threading
import time
from pathlib import Path
from types import FrameType

from lwr.commands.surroundings import find_ini, surroundings
from lwr.config import Config, load
from lwr.core.job import JobKey, check_manager_name
from lwr.core.messages import JSON, Dialect, Kind, job_named, open_body
from lwr.errors import BadRequest, ConfigError, LwrError
from lwr.server.inbox import Incoming, Source
from lwr.server.store import Store
from lwr.transfer.removal import remove_tree

_EXIT_FAILED = 1
#: Told to stop; the job goes on, and this command again goes on with it.
EXIT_STOPPED = 130


def run(args: argparse.Namespace) -> int:
    """Run the job and return 0 when it completed; everything was told by then.

    The job's record is kept below the persistence directory, so that the same command again goes on with a job whose
    first command was killed, and tells of one that is over as it was told before. Later commands remove old records.

    Raises:
        BadRequest: there is no message. ConfigError: the configuration cannot work, or names no queue.
    """
    body = _body(args)
    job_id = job_named(open_body(body, JSON))
    if job_id is None:
        raise BadRequest("The message names no job, or one with an id that cannot be one.")
    manager = check_manager_name(args.manager)
    config = _of_its_own(args, f"{manager}-{job_id}")
    if manager not in config.managers:
        raise BadRequest(f"There is no manager {manager}.", f"There are: {', '.join(config.managers)}.")
    incoming = Incoming(Source(Dialect(args.dialect), manager, Kind.SETUP), body, JSON)
    _sweep(config, time.time())
    code = _serve(config, incoming, JobKey(manager, job_id))
    return EXIT_STOPPED if code is None else code


def _body(args: argparse.Namespace) -> bytes:
    try:
        if args.file is not None:
            return sys.stdin.buffer.read() if args.file == "-" else Path(args.file).read_bytes()
        return base64.b64decode(args.base64, validate=True)
    except OSError as error:
        raise BadRequest(f"{args.file} cannot be read: {error.strerror}.") from error
    except binascii.Error as error:
        raise BadRequest(f"What was given is not base64: {error}.") from error


def _of_its_own(args: argparse.Namespace, name: str) -> Config:
    """The configuration, for a server of this one job: with a record of its own, and taking no messages."""
    ini = find_ini(args.ini)
    environ = surroundings(ini, os.environ)
    base = load(ini, environ)
    if base.queue is None:
        raise ConfigError("`lwr submit` tells of a job over a queue, and none is configured.", "Set message_queue_url.")
    record = Path(base.persistence_directory) / "submit" / name
    return load(
        ini,
        environ,
        arguments={"persistence_directory": str(record), "message_queue_consume": "false", "host": "localhost"},
    )


def _sweep(config: Config, now: float) -> None:
    """Remove the records and directories of jobs of earlier commands that have been over for long."""
    kept_s = max(config.delivered_job_retention_s, config.failed_job_retention_s)
    for record in Path(config.persistence_directory).parent.glob("*/lwr.sqlite"):
        if now - record.stat().st_mtime < kept_s:
            continue
        with contextlib.suppress(LwrError), contextlib.closing(Store(record.parent)) as store:
            jobs = store.jobs(None, None, 1000, None)
            kept = {name for name, manager in config.managers.items() if manager.debug}
            if all(job.terminal and job.key.manager not in kept for job in jobs):
                for job in jobs:
                    remove_tree(job.directory)
                shutil.rmtree(record.parent)


def _serve(config: Config, incoming: Incoming, key: JobKey) -> int | None:
    """The exit code; None when it was told to stop before the job was over and told."""
    from lwr.server import logs
    from lwr.server.app import run_one

    stopping = threading.Event()

    def told(signum: int, frame: FrameType | None) -> None:
        stopping.set()

    previous = {each: signal.signal(each, told) for each in (signal.SIGTERM, signal.SIGINT)}
    output = logs.configure(config.log_format, config.log_level, config.log_file, secrets=config.secrets)
    try:
        with contextlib.closing(output):
            completed = run_one(config, incoming, key, stopping)
    finally:
        for each, handler in previous.items():
            signal.signal(each, handler)
    return None if completed is None else 0 if completed else _EXIT_FAILED
