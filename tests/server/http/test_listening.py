"""A server without a port: its socket, who may connect to it, and what it finds and leaves in its directory."""

from __future__ import annotations

import os
import socket
import stat
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from lwr.client import JobRequest, RemoteServer, run_job
from lwr.errors import ConfigError
from lwr.server.http.listening import open_socket, remove_socket
from tests.server.http.served import served_at_socket
from tests.support import DEADLINE_S
