"""What may be reached, by rule and by spelling."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lwr.errors import BadRequest, ConfigError
from lwr.transfer.reach import Reach, shown

ANYWHERE = Reach()
LIMITED = Reach(hosts=("galaxy.example.org", "*.storage.example.org"), networks=("192.0.2.0/24", "2001:db8::/32"))


@pytest.mark.parametrize(
    "url",
    [
        "http://galaxy.example.org/api/jobs/1/files?job_key=k&path=/a b",
        "HTTPS://GALAXY.example.org:8443/x",
        "http://galaxy.example.org./x",
        "http://user:pass@galaxy.example.org/x",
        "http://eu.storage.example.org/x",
    ],
)
def test_allowed(url: str) -> None:
    assert LIMITED.check_url(url).host
    assert ANYWHERE.check_url(url).host


@pytest.mark.parametrize(
    ("url", "line"),
    [
        ("http://evil.example.com/x", "staging_url_hosts"),
        ("http://galaxy.example.org.evil.example.com/x", "staging_url_hosts"),
        ("http://storage.example.org/x", "staging_url_hosts"),
        ("http://galaxy.example.org@evil.example.com/x", "staging_url_hosts"),
        ("http://evil.example.com#@galaxy.example.org/x", "staging_url_hosts"),
        ("http://evil.example.com?@galaxy.example.org/x", "staging_url_hosts"),
        ("http://127.0.0.1/x", "staging_url_hosts"),
        ("http://[::1]/x", "staging_url_hosts"),
        ("http://0/x", "staging_url_hosts"),
        ("http://0x7f.1/x", "staging_url_hosts"),
        ("http://2130706433/x", "staging_url_hosts"),
        ("http://[::ffff:127.0.0.1]/x", "staging_url_hosts"),
        ("http://gålaxy.example.org/x", "staging_url_hosts"),
    ],
)
def test_other_hosts_are_refused_and_the_line_is_named(url: str, line: str) -> None:
    with pytest.raises(BadRequest) as caught:
        LIMITED.check_url(url)
    assert f"`{line}` in [app:main] of server.ini" in caught.value.hint
    assert ANYWHERE.check_url(url).host  # a server without rules: its jobs could go there too


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "ftp://galaxy.example.org/x",
        "gopher://galaxy.example.org/x",
        "dict://galaxy.example.org:11211/x",
        "data:text/plain,x",
        "scp://-oProxyCommand=x/y",
        "galaxy.example.org/x",
        "",
        "http:///x",
        "http:x",
        "http://galaxy.example.org\\@evil.example.com/x",
        "http://galaxy.example.org\r\nHost: evil/x",
        "http://galaxy.example.org/x\r\nHost: evil",
        "http://galaxy.example.org\t/x",
        "http://galaxy example.org/x",
        "http://galaxy.example.org:99999/x",
        "http://[::1/x",
    ],
)
def test_what_is_no_web_address_is_refused_everywhere(url: str) -> None:
    for reach in (LIMITED, ANYWHERE):
        with pytest.raises(BadRequest) as caught:
            reach.check_url(url)
        assert not caught.value.transient


def test_a_scheme_that_the_admin_took_away() -> None:
    with pytest.raises(BadRequest) as caught:
        Reach(schemes=("https",)).check_url("http://galaxy.example.org/x?job_key=geheim")
    assert "staging_url_schemes" in caught.value.hint
    assert "geheim" not in str(caught.value)
    with pytest.raises(BadRequest):
        Reach(schemes=("ftp",)).check_url("ftp://galaxy.example.org/x")


@pytest.mark.parametrize("address", ["192.0.2.7", "::ffff:192.0.2.7", "2001:db8::1", "2001:db8::1%eth0"])
def test_addresses_within_the_networks(address: str) -> None:
    LIMITED.check_address("h", address)


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "::ffff:127.0.0.1", "169.254.169.254", "fe80::1%eth0"])
def test_addresses_outside_are_refused(address: str) -> None:
    with pytest.raises(BadRequest, match="networks") as caught:
        LIMITED.check_address("galaxy.example.org", address)
    assert "`staging_url_networks` in [app:main] of server.ini" in caught.value.hint
    ANYWHERE.check_address("galaxy.example.org", address)


def test_a_network_that_is_none() -> None:
    with pytest.raises(ConfigError, match="staging_url_networks"):
        Reach(networks=("10.0.0.1/8",))


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    for name in ("data/deep", "data_private", "elsewhere"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "data/out").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "data/in").symlink_to(tmp_path / "data/deep")
    (tmp_path / "data/leaf").symlink_to(tmp_path / "elsewhere/file")
    return tmp_path


@pytest.mark.parametrize(
    ("path", "writing", "real"),
    [
        ("data/deep/file", False, "data/deep/file"),
        ("data/not/there/yet", True, "data/not/there/yet"),
        ("data/in/file", True, "data/deep/file"),
        ("data/in/file", False, "data/deep/file"),
        ("data/leaf", True, "data/leaf"),  # the link itself will be replaced
        ("data/deep/../deep/file", False, "data/deep/file"),
    ],
)
def test_paths_below_a_root(disk: Path, path: str, writing: bool, real: str) -> None:
    reach = Reach(roots=(str(disk / "data"),))
    assert reach.check_path(f"{disk}/{path}", writing) == str(disk / real)


@pytest.mark.parametrize(
    ("path", "writing"),
    [
        ("data_private/file", False),
        ("data_private/file", True),
        ("data/../elsewhere/file", False),
        ("data/out/file", False),
        ("data/out/file", True),
        ("data/leaf", False),
        ("data/deep/../../elsewhere/file", True),
        ("data/..", True),
        ("", False),
    ],
)
def test_paths_that_are_not(disk: Path, path: str, writing: bool) -> None:
    with pytest.raises(BadRequest) as caught:
        Reach(roots=(str(disk / "data"),)).check_path(os.path.join(disk, path), writing)
    assert "`remote_copy_roots` in [app:main] of server.ini" in caught.value.hint


@pytest.mark.parametrize("path", ["relative/file", "", "/a\0b"])
def test_only_absolute_paths_name_a_file(path: str) -> None:
    with pytest.raises(BadRequest):
        ANYWHERE.check_path(path, False)


def test_without_roots_any_path_will_do(disk: Path) -> None:
    assert ANYWHERE.check_path(str(disk / "data/out/file"), False) == str(disk / "elsewhere/file")


def test_a_root_that_is_a_link_is_what_it_leads_to(disk: Path) -> None:
    assert Reach(roots=(str(disk / "data/out"),)).check_path(str(disk / "elsewhere/file"), True)
    assert Reach(roots=("/",)).check_path(str(disk / "data"), True)


@pytest.mark.parametrize("url", ["http://me:secret@h/x?job_key=secret#secret", "http://[secret"])
def test_what_is_shown_of_a_url_holds_no_secret(url: str) -> None:
    assert "secret" not in shown(url)
