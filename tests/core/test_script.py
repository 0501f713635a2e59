"""The job script, run by real shells: bash, and whatever this machine's sh is."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lwr.core.places import SETUP_AREAS, JobLayout
from lwr.core.script import MARKER_NAME, NO_ROOM_STATUS, REFUSED_STATUS, Site, render
from lwr.core.ticket import EnvItem, Ticket

ATTEMPT = "0123456789abcdef" * 2

Env = tuple[EnvItem, ...]


class Job:
    """A directory in which a script is run again and again."""

    def __init__(self, root: Path, shell: str) -> None:
        self.layout = JobLayout(str(root / 'it\'s a "job" $HOME'))
        self.shell = shell
        for area in SETUP_AREAS:
            os.makedirs(self.layout.area(area))

    def ticket(self, command_line: str, env: Env = ()) -> Ticket:
        return Ticket(ATTEMPT, "7", 1, self.layout, command_line, env)

    def run(
        self, command_line: str, env: Env = (), site: Site | None = None, environ: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[bytes]:
        """Run a fresh attempt in the same place."""
        for path in (self.layout.start_marker, self.layout.exit_file):
            Path(path).unlink(missing_ok=True)
        Path(self.layout.script).write_text(render(self.ticket(command_line, env), site or Site()), encoding="utf-8")
        return self.again(environ)

    def again(self, environ: dict[str, str] | None = None) -> subprocess.CompletedProcess[bytes]:
        given_environ = {"PATH": os.environ["PATH"], **(environ or {})}
        return subprocess.run(
            [self.shell, self.layout.script],
            env=given_environ, cwd=self.layout.root, stdin=subprocess.DEVNULL, capture_output=True, check=False,
        )  # fmt: skip

    def show(self, name: str, env: Env = (), site: Site | None = None, environ: dict[str, str] | None = None) -> str:
        """The value that the command sees, as another program sees it; `unset` without one."""
        command = f'if [ -n "${{{name}+set}}" ]; then sh -c \'printf %s "${name}"\'; else printf unset; fi'
        return self.run(command, env, site, environ).stdout.decode()

    @property
    def exit_file(self) -> str:
        return Path(self.layout.exit_file).read_text()


@pytest.fixture(params=["bash", "sh"])
def job(request: pytest.FixtureRequest, tmp_path: Path) -> Job:
    return Job(tmp_path, request.param)


def test_the_exit_code_stands_in_the_file_and_is_the_scripts_own(job: Job) -> None:
    assert job.run("exit 3").returncode == 3
    assert job.exit_file == "3\n"
    assert sorted(os.listdir(job.layout.root)) == sorted(
        [*(area.value for area in SETUP_AREAS), "command.sh", "started", "return_code", "home", "tmp"]
    )


def test_the_integrity_check_ends_before_anything_has_an_effect(job: Job) -> None:
    assert job.run("exit 0", environ={"ABC_TEST_JOB_SCRIPT_INTEGRITY_XYZ": ""}).returncode == 42
    assert not os.path.lexists(job.layout.start_marker)


def test_a_second_start_refuses_and_writes_nothing(job: Job) -> None:
    job.run("echo run >> effects; exit 1")
    marker = Path(job.layout.start_marker).read_text()
    again = job.again()
    assert (again.returncode, again.stdout, again.stderr) == (REFUSED_STATUS, b"", b"")
    assert Path(job.layout.start_marker).read_text() == marker
    assert Path(job.layout.path("working", "effects")).read_text() == "run\n"


def test_a_script_without_room_for_its_number_gives_the_marker_back(job: Job) -> None:
    assert job.run("echo run >> effects").returncode == 0
    for written in (job.layout.start_marker, job.layout.exit_file, job.layout.path("working", "effects")):
        Path(written).unlink()
    # Files can be made, but not written: what a full disk is to the script.
    full = 'trap "" XFSZ; ulimit -f 0; exec "$0" "$1"'
    start = ["sh", "-c", full, job.shell, job.layout.script]
    ended = subprocess.run(start, cwd=job.layout.root, capture_output=True, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (NO_ROOM_STATUS, b"", b"")
    assert not os.path.lexists(job.layout.start_marker)
    # One that stands there is another script's, and stays.
    Path(job.layout.start_marker).touch()
    assert subprocess.run(start, cwd=job.layout.root, check=False).returncode == REFUSED_STATUS
    Path(job.layout.start_marker).unlink()
    assert job.again().returncode == 0
    assert Path(job.layout.path("working", "effects")).read_text() == "run\n"


def test_the_marker_holds_the_scripts_number_before_the_command_runs(job: Job) -> None:
    assert job.run('[ "$(cat ../started)" = "$$" ]').returncode == 0


def test_of_many_starts_at_once_one_runs(job: Job) -> None:
    job.run("echo run >> effects")
    Path(job.layout.start_marker).unlink()
    Path(job.layout.path("working", "effects")).unlink()
    starts = [subprocess.Popen([job.shell, job.layout.script], stderr=subprocess.DEVNULL) for _ in range(12)]
    assert sorted(start.wait() for start in starts) == [0, *[REFUSED_STATUS] * 11]
    assert Path(job.layout.path("working", "effects")).read_text() == "run\n"


@pytest.mark.parametrize(
    "item",
    [
        EnvItem(execute="exit 5"),
        EnvItem(execute="echo 'open"),
        EnvItem(execute=")"),
        EnvItem(execute="cat <<'END'\nno end"),
        EnvItem(name="X", value="'", raw=True),
        EnvItem(name="X", value="$("),
        EnvItem(file="/nowhere/at/all"),
    ],
)
def test_an_environment_that_fails_never_loses_the_exit_code(job: Job, item: EnvItem) -> None:
    ended = job.run("exit 3", (item,))
    # Bash goes on after some of these, where sh ends; either way one code, and in the file.
    assert ended.returncode in (1, 2, 3, 5, 127)
    assert job.exit_file == f"{ended.returncode}\n"


def test_values_expand_unless_raw_says_shell_text(job: Job) -> None:
    environ = {"WHO": "you"}
    assert job.show("X", (EnvItem(name="X", value='a "b" $WHO \\$WHO  c'),), environ=environ) == 'a "b" you $WHO  c'
    assert job.show("X", (EnvItem(name="X", value="'$WHO' ", raw=True),), environ=environ) == "$WHO"
    assert job.show("HOME", (EnvItem(name="HOME", value='"$_GALAXY_JOB_HOME_DIR"', raw=True),)) == job.layout.path(
        "home"
    )


def test_files_are_sourced_and_statements_executed_in_order(job: Job) -> None:
    Path(job.layout.path("configs", "my env.sh")).write_text("A=$A,file; export A\n")
    env = (
        EnvItem(name="A", value="first"),
        EnvItem(file=job.layout.path("configs", "my env.sh").replace("$", "\\$")),
        EnvItem(execute="helper() { A=$A,$1; }; helper executed"),
    )
    assert job.show("A", env, Site(env={"A": "$A,site"})) == "first,file,executed,site"
    raw = EnvItem(file="../configs/'my env.sh'", raw=True)
    assert job.show("A", (EnvItem(execute='cd "$_GALAXY_JOB_DIR"'), raw)) == ",file"


@given(st.lists(st.text(alphabet="ab\"'\\\n )}#;&|<>(%é☃"), min_size=1, max_size=8))
def test_no_value_gets_out_of_its_quotes(tmp_path_factory: pytest.TempPathFactory, values: list[str]) -> None:
    job = Job(tmp_path_factory.mktemp("values"), "sh")
    env = tuple(EnvItem(name=f"V{number}", value=value) for number, value in enumerate(values))
    shown = "".join(f'printf "%s\\0" "$V{number}";' for number in range(len(values)))
    ended = job.run(f"{shown} printf end", env)
    *seen, end = ended.stdout.decode().split("\0")
    assert (end, ended.stderr) == ("end", b"")
    # Inside double quotes a shell takes away some backslashes; nothing else may be lost or come in.
    assert [one.replace("\\", "") for one in seen] == [_without_backslashes(value) for value in values]


def _without_backslashes(value: str) -> str:
    """A backslash before the end of a line takes the line's end away with it, if it is the last of an odd run."""
    kept, run = "", 0
    for char in value:
        if char == "\n" and run % 2:
            run = 0
            continue
        run = run + 1 if char == "\\" else 0
        kept += char
    return kept.replace("\\", "")


@pytest.mark.parametrize(
    ("environ", "slots", "configured"),
    [
        ({}, "1", "unset"),
        ({"GALAXY_SLOTS": "9", "GALAXY_SLOTS_CONFIGURED": "1"}, "1", "unset"),
        ({"SLURM_NTASKS": "4"}, "4", "1"),
        ({"SLURM_CPUS_PER_TASK": "8"}, "8", "1"),
        ({"SLURM_NTASKS": "2", "SLURM_CPUS_PER_TASK": "3", "NSLOTS": "5"}, "6", "1"),
        ({"NSLOTS": "5"}, "5", "1"),
        ({"PBS_NCPUS": "6"}, "6", "1"),
        ({"PBS_NODEFILE": "nodes"}, "3", "1"),
        ({"LSB_DJOB_NUMPROC": "7"}, "7", "1"),
    ],
)
def test_slots_come_from_the_scheduler(job: Job, environ: dict[str, str], slots: str, configured: str) -> None:
    Path(job.layout.path("nodes")).write_text("a\na\nb\n")
    assert job.show("GALAXY_SLOTS", environ=environ) == slots
    assert job.show("GALAXY_SLOTS_CONFIGURED", environ=environ) == configured


@pytest.mark.parametrize(
    ("environ", "memory", "per_slot"),
    [
        ({}, "unset", "unset"),
        ({"SLURM_MEM_PER_NODE": "0"}, "unset", "unset"),
        ({"GALAXY_MEMORY_MB": "much"}, "unset", "unset"),
        ({"SLURM_MEM_PER_NODE": "4000", "SLURM_NTASKS": "4"}, "4000", "1000"),
        ({"SLURM_MEM_PER_CPU": "500", "SLURM_NTASKS": "4"}, "2000", "500"),
        ({"GALAXY_MEMORY_MB": "300"}, "300", "300"),
    ],
)
def test_memory_is_told_where_the_scheduler_says_it(
    job: Job, environ: dict[str, str], memory: str, per_slot: str
) -> None:
    assert job.show("GALAXY_MEMORY_MB", environ=environ) == memory
    assert job.show("GALAXY_MEMORY_MB_PER_SLOT", environ=environ) == per_slot


def test_what_a_job_of_galaxys_may_rely_on(job: Job) -> None:
    command = 'printf "%s\\n" "$PWD" "$_GALAXY_JOB_DIR" "$_GALAXY_JOB_HOME_DIR" "$_GALAXY_JOB_TMP_DIR" '
    command += '"$TMP" "$TEMP" "$TMPDIR" "$PYTHONWARNINGS" "$GALAXY_LIB" "$GALAXY_VIRTUAL_ENV" "$LWR_JOB_MARKER"'
    working, home, tmp = (job.layout.path(name) for name in ("working", "home", "tmp"))
    told = job.run(command).stdout.decode().splitlines()
    assert told == [working, working, home, tmp, tmp, tmp, tmp, "ignore", "None", "None", ATTEMPT]
    assert os.path.isdir(home)
    assert os.path.isdir(tmp)
    assert job.run('[ -x "$GALAXY_PYTHON" ]').returncode == 0
    assert job.show("TMPDIR", environ={"TEMP": "/scratch"}) == "/scratch"


def test_galaxy_on_this_machine_comes_before_other_python_paths(job: Job) -> None:
    site = Site(galaxy_home="/srv/my galaxy")
    assert job.show("GALAXY_LIB", site=site) == "/srv/my galaxy/lib"
    assert job.show("PYTHONPATH", site=site) == "/srv/my galaxy/lib"
    assert job.show("PYTHONPATH", site=site, environ={"PYTHONPATH": "/x"}) == "/srv/my galaxy/lib:/x"
    assert job.show("PYTHONPATH", environ={"PYTHONPATH": "/x"}) == "/x"


def test_galaxys_virtualenv_is_entered_by_those_who_ask(job: Job, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "activate").write_text("VIRTUAL_ENV=entered\n")
    site = Site(galaxy_virtual_env=str(tmp_path))
    command = 'echo "${VIRTUAL_ENV-none}"; _galaxy_setup_environment True; echo "$VIRTUAL_ENV"'
    assert job.run(command, site=site).stdout == b"none\nentered\n"


def test_the_search_path_comes_last_and_is_never_empty(job: Job) -> None:
    site = Site(search_path=("/opt/a b", "/opt/c"))
    assert job.show("PATH", site=site, environ={"PATH": "/usr/bin:/bin"}) == "/usr/bin:/bin:/opt/a b:/opt/c"
    assert job.show("PATH", environ={"PATH": "/usr/bin:/bin"}) == "/usr/bin:/bin"


def test_the_template_survives_what_the_command_does_to_its_shell(job: Job) -> None:
    command = "set -e -u -C; PATH=/nowhere; trap 'exit 9' EXIT; lwr_code=1; cd /; eval 'f() { return 4; }'; f"
    assert job.run(command).returncode == 9
    assert job.exit_file == "9\n"


def test_the_windows_script_says_the_same_in_cmd() -> None:
    layout = JobLayout("C:\\lwr\\50%\\7", windows=True)
    env = (EnvItem(name="A", value="b c"), EnvItem(file="C:\\env.cmd"), EnvItem(execute="set B=%A%"))
    lines = render(Ticket(ATTEMPT, "7", 1, layout, "tool.exe > out", env), Site(search_path=("C:\\py",))).split("\r\n")
    assert lines[2] == f'md "C:\\lwr\\50%%\\7\\started" 2>nul || exit {REFUSED_STATUS}'
    assert f"set {MARKER_NAME}={ATTEMPT}" in lines
    steps = ['set "PATH=%PATH%;C:\\py"', 'set "A=b c"', 'call "C:\\env.cmd"', "set B=%A%"]
    assert lines[lines.index(steps[0]) :][: len(steps)] == steps
    here = lines.index("tool.exe > out")
    assert lines[here - 1].startswith('cd /d "C:\\lwr\\50%%\\7\\working"')
    assert lines[here + 1 :] == [
        "set LWR_CODE=%ERRORLEVEL%",
        '> "C:\\lwr\\50%%\\7\\return_code.part" echo %LWR_CODE%',
        'move /y "C:\\lwr\\50%%\\7\\return_code.part" "C:\\lwr\\50%%\\7\\return_code" >nul',
        "exit %LWR_CODE%",
        "",
    ]
