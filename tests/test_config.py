"""server.ini, job_managers.ini, the environment: what is read, and what is refused with which words."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path

import pytest

from lwr.config import Config, is_loopback, load
from lwr.config import options as o
from lwr.config.queue import broker_options
from lwr.config.queue_options import QUEUE_OPTIONS
from lwr.errors import ConfigError
from lwr.transfer.brokerwords import BrokerOptions, PublishRetry

ROOT = Path(__file__).parents[1]


def configured(
    directory: Path,
    *,
    server: str = "",
    app: str = "",
    managers: str = "",
    environ: Mapping[str, str] | None = None,
    arguments: Mapping[str, str] | None = None,
) -> Config:
    """Load a server.ini with these lines in its two sections; `managers` is a whole job_managers.ini."""
    if managers:
        (directory / "job_managers.ini").write_text(managers)
        app += "\njob_managers_config = job_managers.ini"
    ini = directory / "server.ini"
    ini.write_text(f"[server:main]\n{server}\n[app:main]\n{app}\n")
    ini.chmod(0o600)
    return load(ini, environ or {}, arguments=arguments)


def refusal(directory: Path, *, server: str = "", app: str = "", managers: str = "") -> str:
    with pytest.raises(ConfigError) as refused:
        configured(directory, server=server, app=app, managers=managers)
    return str(refused.value)


def origin(config: Config, name: str) -> str:
    return next(line.origin for line in config.settings if line.name == name)


def test_without_a_file_everything_has_a_safe_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = load(None, {})
    assert (config.host, config.port, config.ssl_pem, config.private_key) == ("localhost", 8913, "", "")
    assert config.staging_directory == str(tmp_path / "lwr_staging")
    assert config.persistence_directory == str(tmp_path / "persisted_data")
    manager = config.managers["_default_"]
    assert (manager.type, manager.options["num_concurrent_jobs"]) == ("queued_python", 1)
    assert list(tmp_path.iterdir()) == []


def test_an_old_file_is_read_with_notices_for_what_is_gone(tmp_path: Path) -> None:
    old = """\
[server:main]
use = egg:Paste#http
port = 8913
host = localhost
[app:main]
paste.app_factory = lwr.web.wsgi:app_factory
staging_directory = %(here)s/lwr_staging
object_store_umask = 0000
private_token = s3cret-of-old
[uwsgi]
master = True
[circus]
[watcher:web]
cmd = chaussette --fd $(circus.sockets.web) paste:server.ini
[loggers]
keys = root
[formatter_generic]
format = %(asctime)s %(message)s
"""
    ini = tmp_path / "server.ini"
    ini.write_text(old)
    ini.chmod(0o600)
    config = load(ini, {})
    assert config.private_key == "s3cret-of-old"
    assert config.staging_directory == str(tmp_path / "lwr_staging")
    told = "\n".join(config.notices)
    for gone in (
        "use (",
        "paste.app_factory",
        "object_store_umask",
        "[uwsgi]",
        "[circus]",
        "[watcher:web]",
        "[loggers]",
    ):
        assert gone in told
    assert len(config.notices) == 8


def test_the_command_line_wins_over_the_environment_and_that_over_the_file(tmp_path: Path) -> None:
    environ = {"LWR_CONFIG_PORT": "2", "LWR_CONFIG_HOST": "::1", "LWR_FAULT": "x", "LWR_URL": "y"}
    config = configured(tmp_path, server="port = 1\nhost = 127.0.0.2", environ=environ, arguments={"port": "3"})
    assert (config.port, config.host) == (3, "::1")
    assert origin(config, "port") == "command line"
    assert origin(config, "host") == "LWR_CONFIG_HOST"


def test_settings_say_the_line_and_hide_the_secret(tmp_path: Path) -> None:
    config = configured(tmp_path, app="# a comment\nprivate_key = hunter2-hunter2\n\ndebug: TRUE")
    assert origin(config, "private_key") == "server.ini:5"
    assert origin(config, "debug") == "server.ini:7"
    assert origin(config, "port") == "default"
    assert "hunter2" not in repr(config) + repr(config.settings)
    assert config.debug


def test_relative_paths_start_at_the_file(tmp_path: Path) -> None:
    config = configured(tmp_path, server="ssl_pem = tls/../host.pem", app="log_file = logs/lwr.log")
    assert config.ssl_pem == str(tmp_path / "host.pem")
    assert config.log_file == str(tmp_path / "logs" / "lwr.log")
    assert configured(tmp_path, server="ssl_pem = *").ssl_pem == "*"


def test_an_empty_value_is_as_if_the_line_were_not_there(tmp_path: Path) -> None:
    config = configured(tmp_path, app="persistence_directory =\nlog_level =")
    assert config.persistence_directory == str(tmp_path / "persisted_data")
    assert config.log_level == "info"


@pytest.mark.parametrize(
    ("server", "app", "words"),
    [
        ("", "private_kye = x", ["private_kye (server.ini:4)", "Did you mean private_key?"]),
        ("", "private_key =", ["private_key (server.ini:4) is empty"]),
        ("", "private_token =", ["is empty"]),
        ("", "private_key = a\nprivate_token = b", ["two different values"]),
        ("", "private_key = a\n  port = 3", ["private_key (server.ini:4) goes on in the next line"]),
        ("", "private_key = 100%secret", ["private_key", "Write a plain per cent sign as %%"]),
        ("", "port = 3", ["It belongs in [server:main]."]),
        ("private_key = x", "", ["It belongs in [app:main]."]),
        ("port = http", "", ["port = 'http' (server.ini:2)", "from 0 to 65535"]),
        ("port = 65536", "", ["from 0 to 65535"]),
        ("port = ²", "", ["from 0 to 65535"]),
        ("", "debug = perhaps", ["debug = 'perhaps'", "true or false"]),
        ("", "shutdown_grace_s = nan", ["number of seconds"]),
        ("", "shutdown_grace_s = -1", ["number of seconds"]),
        ("", "log_format = jsn", ["did you mean json?"]),
        ("", "assign_ids = uuid", ["assign_ids", "not in this version"]),
        ("host = none", "", ["host = none opens no port", "message_queue_url"]),
        ("host = NONE", "message_queue_url = memory://\nmessage_queue_consume = no", ["host = none opens no port"]),
        ("", "message_queue_url = s3cret", ["message_queue_url = ****** (server.ini:4)", "amqp://", "redis"]),
        ("", "message_queue_url = amqp://lwr:s3cret/x@h/v", ["amqp://lwr:**@h/v", "%2F"]),
        ("", "message_queue_url = http://relay:s3cret@h/", ["amqp://"]),
        ("", "message_queue_maximum_bytes = 100", ["from 65536"]),
        ("", "amqp_durable = false", ["amqp_durable = 'false'", "always durable"]),
        ("", "amqp_heartbeat = often", ["number of seconds"]),
        ("", "amqp_consumer_timeout = -1", ["number of seconds"]),
        ("", "amqp_publish_delivery_mode = 3", ["2 (persistent)"]),
        ("", "amqp_publish_serializer = pickle", ["amqp_publish_serializer (server.ini:4) is not an option"]),
        ("", "amqp_publish_retri = no", ["Did you mean amqp_publish_retry?"]),
        ("", "amqp_connect_ssl_cert_reqs = none", ["one of cert_required, cert_optional, cert_none"]),
        ("", "message_queue_url = amqp://h\namqp_connect_ssl_ca_cert = x", ["amqp_connect_ssl_ca_cert"]),
        ("amqp_connect_ssl_ca_certs = x", "", ["It belongs in [app:main]."]),
        ("", "message_queue_url =", ["message_queue_url (server.ini:4) is empty", "or remove the line"]),
        ("", "staging_directory = .", ["persistence_directory", "inside a staging_directory"]),
        ("", "job_managers_config = nowhere.ini", ["There is no file", "nowhere.ini"]),
        ("", "[ap:main]", ["[ap:main]", "Did you mean app:main?"]),
        ("", "debug = 1\ndebug = 1", ["line 5", "debug stands twice in [app:main]"]),
        ("", "private_key s3cret", ["line 4", "`name = value`"]),
    ],
)
def test_what_cannot_be_meant_is_refused_with_the_cure(tmp_path: Path, server: str, app: str, words: list[str]) -> None:
    told = refusal(tmp_path, server=server, app=app)
    for word in words:
        assert word in told
    assert "s3cret" not in told
    assert "100%" not in told


def test_unknown_names_in_the_environment_are_refused_too(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"LWR_CONFIG_PRIVATE_KYE.*Did you mean private_key"):
        configured(tmp_path, environ={"LWR_CONFIG_PRIVATE_KYE": "x"})
    with pytest.raises(ConfigError, match=r"LWR_CONFIG_PRIVATE_KEY.* is empty"):
        configured(tmp_path, environ={"LWR_CONFIG_PRIVATE_KEY": ""})


@pytest.mark.parametrize(
    "host",
    ["0.0.0.0", "::", "192.0.2.7", "cluster.example.org", "127.0.0.1.example.org", "0"],  # noqa: S104  the point
)
def test_other_machines_are_not_let_in_without_a_secret(tmp_path: Path, host: str) -> None:
    told = refusal(tmp_path, server=f"host = {host}")
    assert "private_key" in told
    assert "host = localhost" in told
    assert configured(tmp_path, server=f"host = {host}", app="private_key = long-and-random").host == host


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST", "127.0.0.1", "127.8.9.1", "::1", "[::1]"])
def test_loopback_needs_no_secret(tmp_path: Path, host: str) -> None:
    assert is_loopback(configured(tmp_path, server=f"host = {host}").host)


def test_a_secret_that_others_can_read_is_told(tmp_path: Path) -> None:
    assert configured(tmp_path, app="private_key = x").notices == ()
    (tmp_path / "server.ini").chmod(0o644)
    assert "chmod 600" in load(tmp_path / "server.ini", {}).notices[0]
    assert load(tmp_path / "server.ini", {"LWR_CONFIG_PRIVATE_KEY": "y"}).private_key == "y"


@pytest.mark.parametrize("content", [b"\xff\xfe[", b"port = 1\n", b"\x00"])
def test_a_file_that_is_no_ini_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "server.ini").write_bytes(content)
    with pytest.raises(ConfigError, match=r"server\.ini"):
        load(tmp_path / "server.ini", {})


def test_managers_have_their_own_options_and_what_all_share(tmp_path: Path) -> None:
    managers = """\
[DEFAULT]
root = /data
max_concurrent_jobs = 3
galaxy_config_file = %(root)s/galaxy.ini
[manager:_default_]
Type = queued_python
env_Path_To_Tools = %(root)s/tools
env_API_KEY = s3cret
[manager:quick]
type = unqueued
staging_directory = quick
debug = true
galaxy_home = none
"""
    config = configured(tmp_path, managers=managers, environ={"GALAXY_HOME": "/srv/galaxy"})
    first, quick = config.managers.values()
    assert first.options["num_concurrent_jobs"] == 3
    assert first.site.env == {"Path_To_Tools": "/data/tools", "API_KEY": "s3cret"}
    assert first.site.galaxy_home == "/srv/galaxy"
    assert first.system_properties == {"galaxy_home": "/srv/galaxy", "galaxy_config_file": "/data/galaxy.ini"}
    assert (quick.staging_directory, quick.debug, first.debug) == (str(tmp_path / "quick"), True, False)
    assert quick.site.galaxy_home == ""
    assert "galaxy_home" not in quick.system_properties
    assert "s3cret" not in repr(config.settings) + repr(config)


@pytest.mark.parametrize(
    ("managers", "words"),
    [
        ("[manager:a]\n", ["[manager:a]", "has no type"]),
        ("[manager:a]\ntype = queued_pyton\n", ["'queued_pyton'", "Did you mean queued_python?"]),
        (
            "[manager:a]\ntype = unqueued\nnum_concurrent_jobs = 2\n",
            ["not an option of type unqueued", "queued_python"],
        ),
        ("[manager:a]\ntype = queued_python\nmax_concurent_jobs = 2\n", ["Did you mean max_concurrent_jobs?"]),
        ("[manager:a]\ntype = queued_python\nnum_concurrent_jobs = many\n", ["num_concurrent_jobs = 'many'"]),
        (
            "[manager:a]\ntype = queued_python\nnum_concurrent_jobs = 1\nmax_concurrent_jobs = 2\n",
            ["two different values"],
        ),
        ("[manager:a]\ntype = unqueued\nenv_A-B = 1\n", ["env_A-B", "not an option"]),
        ("[manager:a]\ntype = unqueued\nname = b\n", ["name (job_managers.ini:3) is not an option"]),
        ("[manager:a]\ntype = unqueued\nassign_ids = uuid\n", ["not in this version"]),
        ("[manager:a]\ntype = unqueued\nMin_polling_interval = 1\n", ["(job_managers.ini:3)", "not in this version"]),
        ("[manager:a]\ntype = unqueued\njob_name_template = x\n", ["job_name_template", "not in this version"]),
        ("[manager:a b]\ntype = unqueued\n", ["'a b' cannot be a manager's name"]),
        ("[manager:../x]\ntype = unqueued\n", ["cannot be a manager's name"]),
        ("[manger:a]\ntype = unqueued\n", ["[manger:a]", "`[manager:NAME]`"]),
        ("[DEFAULT]\nstagin_directory = x\n[manager:a]\ntype = unqueued\n", ["Did you mean staging_directory?"]),
        ("# none\n", ["defines no manager"]),
        ("[manager:a]\ntype = unqueued\n[manager:a]\ntype = unqueued\n", ["[manager:a] stands twice"]),
    ],
)
def test_managers_that_cannot_be_meant_are_refused(tmp_path: Path, managers: str, words: list[str]) -> None:
    told = refusal(tmp_path, managers=managers)
    for word in words:
        assert word in told


def test_a_server_without_a_queue_has_none(tmp_path: Path) -> None:
    config = configured(tmp_path)
    assert config.queue is None
    assert config.serves_http
    idle = configured(tmp_path, app="amqp_prefetch_count = 3\namqp_connect_ssl_ca_certs = x\namqp_heartbeat = 30")
    assert idle.queue is None
    assert [notice.partition(" ")[0] for notice in idle.notices] == ["amqp_connect_ssl_ca_certs", "amqp_prefetch_count"]


def test_the_queue_by_default(tmp_path: Path) -> None:
    config = configured(tmp_path, app="message_queue_url = amqp://lwr:s3cret@broker/site")
    queue = config.queue
    assert queue is not None
    assert (queue.consume, queue.publish, queue.key_prefix, queue.acknowledge) == (True, True, "", False)
    assert (queue.maximum_bytes, queue.republish_after_s) == (16 * 1024**2, 30)
    broker = queue.broker
    assert broker.url == "amqp://lwr:s3cret@broker/site"
    assert (broker.tls, broker.heartbeat_s, broker.connect_timeout_s, broker.consumer_timeout_s) == (None, 30, 10, 0.2)
    assert (broker.prefetch_count, broker.publish_timeout_s) == (32, 30)
    assert broker.publish_extra == {"priority": 0, "delivery_mode": 2}
    assert broker.retry == PublishRetry(5, 1, 2, 30)
    assert config.delivered_job_retention_s == 86400
    assert "s3cret" not in repr(config) + repr(config.settings) + "".join(config.notices)


def test_every_option_of_the_queue_arrives(tmp_path: Path) -> None:
    app = """\
message_queue_url = amqp://broker
message_queue_consume = on
message_queue_publish = true
message_queue_maximum_bytes = 65536
amqp_key_prefix = site7_
amqp_consumer_timeout = None
amqp_connect_ssl_ca_certs = tls/ca.pem
amqp_connect_ssl_keyfile = /tls/key.pem
amqp_connect_ssl_certfile = cert.pem
amqp_connect_ssl_cert_reqs = CERT_NONE
amqp_connect_ssl_server_hostname = other.example.org
amqp_publish_retry = true
amqp_publish_retry_max_retries = none
amqp_publish_retry_interval_start = 2
amqp_publish_retry_interval_step = 3
amqp_publish_retry_interval_max = 4
amqp_publish_timeout = 5
amqp_publish_priority = 6
amqp_publish_delivery_mode = transient
amqp_heartbeat = off
amqp_connect_timeout = 8
amqp_prefetch_count = 9
amqp_acknowledge = yes
amqp_ack_republish_time = 10
amqp_durable = true
"""
    environ = {"LWR_CONFIG_MESSAGE_QUEUE_PUBLISH": "no", "LWR_CONFIG_AMQP_CONNECT_SSL_CIPHERS": "HIGH"}
    config = configured(tmp_path, server="host = None", app=app, environ=environ)
    queue = config.queue
    assert queue is not None
    assert (config.host, config.serves_http) == ("", False)
    assert (queue.consume, queue.publish, queue.key_prefix, queue.maximum_bytes) == (True, False, "site7_", 65536)
    assert (queue.acknowledge, queue.republish_after_s) == (True, 10)
    assert queue.broker == BrokerOptions(
        url="amqp://broker",
        tls={
            "ca_certs": str(tmp_path / "tls/ca.pem"),
            "certfile": str(tmp_path / "cert.pem"),
            "keyfile": "/tls/key.pem",
            "cert_reqs": "cert_none",
            "server_hostname": "other.example.org",
            "ciphers": "HIGH",
        },
        heartbeat_s=0,
        connect_timeout_s=8,
        consumer_timeout_s=None,
        prefetch_count=9,
        publish_timeout_s=5,
        publish_extra={"priority": 6, "delivery_mode": 1},
        retry=PublishRetry(None, 2, 3, 4),
    )
    assert [notice.partition(" ")[0] for notice in config.notices] == ["amqp_durable"]
    assert origin(config, "amqp_connect_ssl_ciphers") == "LWR_CONFIG_AMQP_CONNECT_SSL_CIPHERS"
    shown = {line.name: line.shown for line in config.settings}
    assert {option.name for option in QUEUE_OPTIONS} - set(shown) == {"amqp_connect_ssl_*"}
    assert shown["message_queue_url"] == "******"


@pytest.mark.parametrize(("word", "seconds"), [("True", 30), ("false", 0), ("None", 0), ("580", 580), ("0", 0)])
def test_words_for_the_heartbeat(tmp_path: Path, word: str, seconds: float) -> None:
    config = configured(tmp_path, app=f"message_queue_url = amqp://h\namqp_heartbeat = {word}")
    assert config.queue is not None
    assert config.queue.broker.heartbeat_s == seconds


def test_one_prefix_is_for_one_manager(tmp_path: Path) -> None:
    app = "message_queue_url = amqp://h\namqp_key_prefix = p_"
    assert configured(tmp_path, app=app).notices == ()
    two = "[manager:_default_]\ntype = unqueued\n[manager:b]\ntype = unqueued\n"
    (notice,) = configured(tmp_path, app=app, managers=two).notices
    assert "those of the manager _default_, and of no other" in notice


def test_a_client_has_the_same_options(tmp_path: Path) -> None:
    given = {"connect_ssl_ca_certs": "ca.pem", "amqp_publish_retry": "false", "acknowledge": "true"}
    options = broker_options("amqp://u:s3cret@h", given, directory=tmp_path)
    assert options.tls == {"ca_certs": str(tmp_path / "ca.pem"), "cert_reqs": "cert_required"}
    assert options.retry.max_retries == 0
    for url, values, words in (
        ("amqp://h", {"hartbeat": "1"}, "amqp_hartbeat is not an option. Did you mean amqp_heartbeat?"),
        ("amqp://h", {"durable": "no"}, "always durable"),
        ("nats://u:s3cret@h", {}, "must begin with amqp://"),
        ("", {}, "is empty"),
    ):
        with pytest.raises(ConfigError) as refused:
            broker_options(url, values, directory=tmp_path)
        assert words in str(refused.value)
        assert "s3cret" not in str(refused.value)


def test_a_queue_needs_kombu() -> None:
    program = (
        "import sys; sys.modules['kombu'] = None; from pathlib import Path\n"
        "from lwr.config.queue import broker_options; broker_options('amqp://h', {}, directory=Path('/'))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert "pip install 'lwr[amqp]'" in done.stderr


def test_the_samples_explain_every_option_and_can_be_used_as_they_are(tmp_path: Path) -> None:
    for name in ("server.ini", "job_managers.ini"):
        (tmp_path / name).write_text((ROOT / f"{name}.sample").read_text(encoding="utf-8"))
    with (tmp_path / "server.ini").open("a") as ini:
        ini.write("job_managers_config = job_managers.ini\n")
    assert load(tmp_path / "server.ini", {}).notices == ()
    for option in o.SERVER_OPTIONS:
        assert f"\n#{option.name.removesuffix('*')}" in (ROOT / "server.ini.sample").read_text(encoding="utf-8")
        assert f"### `{option.name}`" in (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")


def test_the_samples_show_the_defaults(tmp_path: Path) -> None:
    lines = (ROOT / "server.ini.sample").read_text(encoding="utf-8").replace("\n#", "\n").splitlines()
    names = tuple(option.name for option in o.SERVER_OPTIONS if option.default)
    written = {line.partition(" =")[0]: line for line in lines if line.startswith(tuple(f"{name} =" for name in names))}
    assert set(written) == set(names)
    server = "\n".join(written[name] for name in ("host", "port"))
    app = "\n".join(line for name, line in written.items() if name not in ("host", "port"))
    spelled, default = configured(tmp_path, server=server, app=app), configured(tmp_path)
    for field in fields(Config):
        if field.name != "settings":
            assert getattr(spelled, field.name) == getattr(default, field.name), field.name
