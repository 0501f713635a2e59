"""A real RabbitMQ, as the tests' own process: plain, TLS, and TLS that demands a client's certificate.

The node has a name, ports, a cookie and an epmd of its own, so that it meets no other broker of the machine and leaves
nothing behind. It runs as whoever runs the tests: the package's `rabbitmq-server` wants root or its own user, the
script that it calls does not. Questions and orders go in by `erl_call`, which takes milliseconds where `rabbitmqctl`
takes most of a second.
"""

from __future__ import annotations

import itertools
import os
import re
import secrets
import signal
import subprocess
from pathlib import Path
from types import TracebackType
from urllib.parse import quote

import trustme

from tests.machines.programs import Program, needed
from tests.support import DEADLINE_S, free_port, wait_until

_SCRIPTS = Path("/usr/lib/rabbitmq/bin")
_SMALL = "-kernel inet_dist_use_interface {127,0,0,1} +S 1:1 +sbwt none +SDcpu 1:1 +SDio 1"
_CONFIGURATION = """\
listeners.tcp.1 = 127.0.0.1:{port}
listeners.ssl.1 = 127.0.0.1:{mutual_tls_port}
ssl_options.cacertfile = {directory}/ca.pem
ssl_options.certfile = {directory}/server.pem
ssl_options.keyfile = {directory}/server.key
ssl_options.verify = verify_peer
ssl_options.fail_if_no_peer_cert = true
ssl_cert_login_from = common_name
auth_mechanisms.1 = PLAIN
auth_mechanisms.2 = EXTERNAL
default_user = lwr
default_pass = {password}
log.console = true
log.console.level = info
log.file = false
"""
# The configuration has one set of TLS options for all listeners; this one asks nobody for a certificate.
_SECOND_LISTENER = """
    Tls = [{{certfile, "{directory}/server.pem"}}, {{keyfile, "{directory}/server.key"}}, {{verify, verify_none}}],
    rabbit_networking:start_ssl_listener({{"127.0.0.1", {port}}}, Tls, 1)
"""
_NEW_HOST = """
    ok = rabbit_vhost:add(<<"{name}">>, <<"tests">>),
    ok = rabbit_auth_backend_internal:set_permissions(
        <<"lwr">>, <<"{name}">>, <<".*">>, <<".*">>, <<".*">>, <<"tests">>)
"""
_NEW_USER = """
    ok = rabbit_auth_backend_internal:add_user(<<"{name}">>, <<"{password}">>, <<"tests">>),
    ok = rabbit_auth_backend_internal:set_permissions(
        <<"{name}">>, <<"{vhost}">>, <<"{configure}">>, <<"{write}">>, <<"{read}">>, <<"tests">>)
"""
_DELETE = """
    {{ok, Queue}} = rabbit_amqqueue:lookup(rabbit_misc:r(<<"{vhost}">>, queue, <<"{name}">>)),
    rabbit_amqqueue:delete(Queue, false, false, <<"tests">>)
"""
_DEPTHS = """
    lists:foreach(fun(Q) ->
        {{resource, _, _, Name}} = amqqueue:get_name(Q),
        [{{_, Ready}}, {{_, Held}}] = rabbit_amqqueue:info(Q, [messages_ready, messages_unacknowledged]),
        io:format("~s\\t~p~n", [Name, Ready + Held])
    end, rabbit_amqqueue:list(<<"{vhost}">>))
"""
#: What erl_call says after all that was written, if the last expression was `ok`.
_WELL = "{ok, ok}"


class RabbitMQ:
    """A broker on loopback ports of its own, with all that it writes below `directory`; a context manager.

    The user `lwr` with `password` may do everything in `/` and in each new `vhost`. `start` after `stop` or `kill` is
    the same broker again: same ports, same durable queues and messages.

    Attributes:
        port: AMQP without TLS.
        tls_port: AMQPS for everybody.
        mutual_tls_port: AMQPS for clients with a certificate of our CA; that of `client_pem` is in the name of lwr.
        ca_pem, client_pem, client_key: files; the server's certificate is for localhost and 127.0.0.1.
        other_ca_pem, other_client_pem, other_client_key: the same of a CA that nobody here trusts.
    """

    def __init__(self, directory: Path) -> None:
        server = needed("rabbitmq-server", "rabbitmq-server")
        assert (_SCRIPTS / "rabbitmq-server").exists(), f"{server} is not Debian's: its script is not in {_SCRIPTS}"
        directory.mkdir(parents=True, exist_ok=True)
        self.port, self.tls_port, self.mutual_tls_port, dist_port, epmd_port = (free_port() for _ in range(5))
        self.password = secrets.token_hex(8)
        self.node = f"lwr-{secrets.token_hex(4)}@localhost"
        self._directory = directory
        self._hosts = itertools.count(1)
        self._make_certificates()
        # Who answers erl_call is whoever has the cookie; Erlang wants it to be its owner's alone.
        cookie = directory / ".erlang.cookie"
        cookie.touch(mode=0o600)
        cookie.write_text(secrets.token_hex(16))
        cookie.chmod(0o400)
        (directory / "rabbitmq.conf").write_text(
            _CONFIGURATION.format(
                directory=directory, port=self.port, mutual_tls_port=self.mutual_tls_port, password=self.password
            )
        )
        (directory / "enabled_plugins").write_text("[rabbitmq_auth_mechanism_ssl].\n")
        self._environ = {
            "PATH": f"{os.environ['PATH']}:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": str(directory),
            "LANG": "C.UTF-8",
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_EPMD_PORT": str(epmd_port),
            "RUNNING_UNDER_SYSTEMD": "1",  # the script then becomes the Erlang machine, and signals reach it
            "RABBITMQ_CONF_ENV_FILE": str(directory / "none"),
            "RABBITMQ_CONFIG_FILE": str(directory / "rabbitmq.conf"),
            "RABBITMQ_DIST_PORT": str(dist_port),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(directory / "enabled_plugins"),
            "RABBITMQ_FEATURE_FLAGS_FILE": str(directory / "feature_flags"),
            "RABBITMQ_LOG_BASE": str(directory),
            "RABBITMQ_MNESIA_BASE": str(directory / "mnesia"),
            "RABBITMQ_NODENAME": self.node,
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": _SMALL,
        }
        clean = ["env", "-i", *(f"{name}={value}" for name, value in self._environ.items())]
        self._names = Program([*clean, needed("epmd", "erlang-base")], epmd_port, directory / "epmd.log")
        self._program = Program([*clean, _SCRIPTS / "rabbitmq-server"], self.port, directory / "rabbitmq.log")

    def _make_certificates(self) -> None:
        def save(name: str, blob: trustme.Blob) -> Path:
            blob.write_to_path(self._directory / name)
            return self._directory / name

        ca, other = trustme.CA(), trustme.CA()
        self.ca_pem, self.other_ca_pem = save("ca.pem", ca.cert_pem), save("other_ca.pem", other.cert_pem)
        for name, certificate in {
            "server": ca.issue_cert("localhost", "127.0.0.1"),
            "client": ca.issue_cert("lwr@example.org", common_name="lwr"),
            "other_client": other.issue_cert("lwr@example.org", common_name="lwr"),
        }.items():
            save(f"{name}.pem", certificate.cert_chain_pems[0])
            save(f"{name}.key", certificate.private_key_pem)
        self.client_pem, self.client_key = self._directory / "client.pem", self._directory / "client.key"
        self.other_client_pem, self.other_client_key = (
            self._directory / "other_client.pem",
            self._directory / "other_client.key",
        )

    def start(self) -> None:
        """Start, and return when all its listeners take connections."""
        if not self._names.runs:
            self._names.start()
        self._program.start()
        wait_until(lambda: self._asked("true = rabbit:is_running()") == _WELL, "RabbitMQ to be up")
        self.evaluate(_SECOND_LISTENER.format(directory=self._directory, port=self.tls_port))

    def stop(self) -> None:
        """SIGTERM, and return when it is gone. Clients are told."""
        self._program.stop()

    def kill(self) -> None:
        """SIGKILL, and return when it is gone. Clients see their connections break."""
        self._program.kill()

    def restart(self) -> None:
        self.stop()
        self.start()

    def freeze(self) -> None:
        """Stop the clock of the process: connections stay, and nobody answers on them. `thaw` ends that."""
        self._program.send(signal.SIGSTOP)

    def thaw(self) -> None:
        self._program.send(signal.SIGCONT)

    def __enter__(self) -> RabbitMQ:
        try:
            self.start()
        except BaseException:
            self._names.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        self._names.stop()

    def url(self, vhost: str = "/", *, port: int = 0, user: str = "", scheme: str = "amqp") -> str:
        """Where to log in.

        Args:
            port: of the listener, or of a proxy before it; 0 for `self.port`.
            user: `name:password`; empty for lwr's.
        """
        login = user or f"lwr:{self.password}"
        return f"{scheme}://{login}@localhost:{port or self.port}/{quote(vhost, safe='')}"

    def tls_url(self, vhost: str = "/") -> str:
        return self.url(vhost, port=self.tls_port, scheme="amqps")

    def mutual_tls_url(self, vhost: str = "/") -> str:
        return self.url(vhost, port=self.mutual_tls_port, scheme="amqps")

    def vhost(self) -> str:
        """The name of a new virtual host, so that one broker serves many tests."""
        name = f"test-{next(self._hosts)}"
        self.evaluate(_NEW_HOST.format(name=name))
        return name

    def add_user(self, name: str, password: str, vhost: str, *, configure: str, write: str, read: str) -> None:
        """A user with permissions in one virtual host: three regular expressions over names."""
        self.evaluate(
            _NEW_USER.format(
                name=name, password=password, vhost=vhost, configure=configure, write=write, read=read
            ).replace("\\", "\\\\")
        )

    def queue_depths(self, vhost: str = "/") -> dict[str, int]:
        """Messages in each queue, with those that were delivered and not yet acknowledged."""
        lines = self.evaluate(_DEPTHS.format(vhost=vhost)).splitlines()
        return {name: int(count) for name, _, count in (line.partition("\t") for line in lines)}

    def delete_queue(self, vhost: str, name: str) -> None:
        """Its messages are gone with it, and its consumers are told."""
        self.evaluate(_DELETE.format(vhost=vhost, name=name))

    def close_connections(self) -> None:
        """End all connections, as an admin or a full broker does; returns when they are gone."""
        self.evaluate('[rabbit_networking:close_connection(C, "test") || C <- rabbit_networking:connections()]')
        wait_until(lambda: self._asked("[] = rabbit_networking:connections()") == _WELL, "connections to end")

    def block(self) -> None:
        """Have it believe that its memory is full: publishers are no longer read. `unblock` ends that."""
        self.evaluate("rabbit_alarm:set_alarm({{resource_limit, memory, node()}, []})")

    def unblock(self) -> None:
        self.evaluate("rabbit_alarm:clear_alarm({resource_limit, memory, node()})")

    @property
    def version(self) -> str:
        return self.evaluate("io:format(rabbit_misc:version())")

    def log(self) -> str:
        return self._program.log()

    def ctl(self, *arguments: str) -> str:
        """What `rabbitmqctl` says; it takes most of a second."""
        return subprocess.run(
            [_SCRIPTS / "rabbitmqctl", "-q", "-n", self.node, *arguments],
            env=self._environ, check=True, capture_output=True, text=True, timeout=DEADLINE_S,
        ).stdout  # fmt: skip

    def evaluate(self, expression: str) -> str:
        """What an Erlang expression writes on the node; fails if it does not end well."""
        answer = self._asked(expression)
        assert answer.endswith(_WELL), f"RabbitMQ said {answer!r} to {expression}"
        return answer.removesuffix(_WELL)

    def _asked(self, expression: str) -> str:
        return subprocess.run(
            ["erl_call", "-n", self.node, "-timeout", str(int(DEADLINE_S)), "-e", "-fetch_stdout"],
            input=re.sub(r"\s+", " ", f"{expression}, ok.") + "\n",
            env=self._environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        ).stdout  # fmt: skip
