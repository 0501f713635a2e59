"""The command line: which commands and options there are. What a command does is in `lwr.commands`.

Must stay light: it imports the parser only, and a command's module when that command was asked for, so that
`lwr --help` and completion answer at once.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from lwr import __version__

#: What LWR itself could not do; a tool's own exit code may be anything.
EXIT_ERROR = 2
EXIT_INTERRUPTED = 130

_Sub = argparse._SubParsersAction  # argparse has no public name for it


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; an error of LWR's is one sentence and a hint on stderr."""
    from lwr.errors import LwrError

    args = parser().parse_args(argv)
    try:
        return _run(args)
    except LwrError as error:
        if args.debug:
            raise
        _tell(error.code, error.message, error.hint, as_json=args.json)
        return int(args.exit_error)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # Who read our output has gone (`lwr jobs list | head`), and Python must not stumble over that once more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_ERROR


def parser() -> argparse.ArgumentParser:
    """The parser of all commands; its result has `command` and what that command's module reads."""
    top = argparse.ArgumentParser(
        prog="lwr",
        description="The Lightweight Runner: runs jobs on machines that share no file system with their owner.",
        epilog="`lwr COMMAND --help` tells more about each.",
        allow_abbrev=False,
    )
    top.add_argument("--version", action="version", version=f"lwr {__version__}")
    top.add_argument("--debug", action="store_true", help="show the traceback of an error")
    sub = top.add_subparsers(dest="command", metavar="COMMAND", required=True)
    _add_serve(sub)
    _add_run(sub)
    _add_jobs(sub)
    _add_status(sub)
    _add_mq(sub)
    _add_submit(sub)
    _add_verify(sub)
    _add_check(sub)
    _add_config(sub)
    _add_actions(sub)
    return top


def _run(args: argparse.Namespace) -> int:
    from importlib import import_module

    code: int = import_module(f"lwr.commands.{args.command}").run(args)
    sys.stdout.flush()  # here, where a reader that has gone is no trouble yet
    return code


def _tell(code: str, message: str, hint: str, *, as_json: bool) -> None:
    if as_json:
        import json

        sys.stdout.write(json.dumps({"error": code, "message": message, "hint": hint}) + "\n")
    else:
        sys.stderr.write(f"lwr: {message}\n{hint and f'     {hint}'}".rstrip() + "\n")


def _add_command(sub: _Sub[argparse.ArgumentParser], name: str, summary: str, text: str) -> argparse.ArgumentParser:
    """A command with `--json`; `text` is its description, examples last."""
    command = sub.add_parser(
        name,
        help=summary,
        description=text,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    command.add_argument("--json", action="store_true", help="answer in JSON, for programs")
    command.set_defaults(exit_error=EXIT_ERROR)
    return command


def _add_serve(sub: _Sub[argparse.ArgumentParser]) -> None:
    command = _add_command(
        sub,
        "serve",
        "run a server",
        "Run a server until it is told to stop (Ctrl-C, SIGTERM). Jobs go on when it stops, and are found again by\n"
        "the next one.\n\n"
        "examples:\n"
        "  lwr serve                        with ./server.ini, or the defaults where there is none\n"
        "  lwr serve /etc/lwr/server.ini --daemon\n"
        "  lwr serve /etc/lwr/server.ini --stop-daemon",
    )
    _add_ini(command)
    what = command.add_mutually_exclusive_group()
    what.add_argument("--daemon", action="store_true", help="start in the background; returns when it answers")
    what.add_argument("--stop-daemon", action="store_true", help="stop that server; returns when it is gone")
    what.add_argument("--status", action="store_true", help="say whether it runs; exits 0 if so, 3 if not")
    command.add_argument("--pid-file", metavar="FILE", help="of the daemon (default: lwr.pid beside server.ini)")
    command.add_argument(
        "--log-file",
        metavar="FILE",
        help="append the log to it (default: stderr; of a daemon lwr.log beside server.ini)",
    )
    command.add_argument("--host", help="listen there, whatever server.ini says")
    command.add_argument("--port", help="listen on that port, whatever server.ini says; 0 takes a free one")


def _add_config(sub: _Sub[argparse.ArgumentParser]) -> None:
    config = sub.add_parser("config", help="check or show a configuration", description="Look at a configuration.")
    what = config.add_subparsers(dest="what", metavar="WHAT", required=True)
    for name, summary, text in (
        ("check", "say whether a server could start with it", "Say whether a server could start with it, or why not."),
        ("show", "show each value and where it came from", "Show each value and where it came from; secrets hidden."),
    ):
        example = f"{text}\n\nexample:\n  lwr config {name} /etc/lwr/server.ini"
        command = _add_command(what, name, summary, example)
        _add_ini(command)


def _add_actions(sub: _Sub[argparse.ArgumentParser]) -> None:
    actions = sub.add_parser("actions", help="explain a file of rules", description="Look at rules for files.")
    command = _add_command(
        actions.add_subparsers(dest="what", metavar="WHAT", required=True),
        "explain",
        "show which rule takes a path, and what happens then",
        "Show which rule of a file takes each path, and what happens to the file before and after the job. Nothing is\n"
        "moved, and the paths need not be there.\n\n"
        "examples:\n"
        "  lwr actions explain --config lwr_actions.yaml /galaxy/files/store/1/dataset_7.dat\n"
        "  lwr actions explain --config lwr_actions.yaml --default remote_transfer --kind tool /galaxy/tools/gc.py",
    )
    command.add_argument("--config", required=True, metavar="FILE", help="the file of rules (file_action_config)")
    command.add_argument(
        "--default", default="transfer", metavar="ACTION", help="what happens without a rule (default: transfer)"
    )
    command.add_argument("--kind", metavar="KIND", help="the path's kind (default: input, output and unstructured)")
    command.add_argument("paths", nargs="+", metavar="PATH", help="a path on the client's side")


def _add_ini(command: argparse.ArgumentParser) -> None:
    command.add_argument("ini", nargs="?", metavar="server.ini", help="the configuration (default: ./server.ini)")


def _add_server(command: argparse.ArgumentParser) -> None:
    """How a client finds its server."""
    group = command.add_argument_group("the server")
    group.add_argument("--url", metavar="URL", help="where it is (default: $LWR_URL, else http://localhost:8913/)")
    group.add_argument("--token-file", metavar="FILE", help="holds its secret, one line (default: $LWR_TOKEN_FILE)")


def _add_run(sub: _Sub[argparse.ArgumentParser]) -> None:
    command = _add_command(
        sub,
        "run",
        "run a command on a server and bring its results back",
        "Run a command on a server: files go there, the command runs, its outputs come back.\n\n"
        "Write the command as you would here. Paths of sent files and names of outputs that stand in it become\n"
        "their paths on the server. One word (in quotes) is shell text; several words arrive exactly as they are.\n\n"
        "examples:\n"
        "  lwr run --input reads.fa --output n.txt -- 'grep -c \">\" reads.fa > n.txt'\n"
        "  lwr run --tool gc.py --input genome.fa --extra genome.fa.fai --output gc.tsv \\\n"
        "          -- python gc.py --in=genome.fa --out=gc.tsv\n"
        "  lwr run --url amqps://me@broker.example.org/lwr --token-file ~/.lwr-broker \\\n"
        "          --jobs-directory /srv/lwr/staging --input list.txt -- wc -l list.txt\n\n"
        "The exit code is the command's (128 + N when signal N ended it); 125 when LWR could not do its part, 130\n"
        "after Ctrl-C, which ends the job on the server too and cleans up there.",
    )
    command.usage = "lwr run [option ...] -- COMMAND [WORD ...]"
    command.set_defaults(exit_error=125)
    files = command.add_argument_group("files (each option as often as needed)")
    for name, metavar, text in (
        ("input", "FILE", "send a file, or a directory with all in it"),
        ("extra", "FILE", "send a file or directory that must lie beside its input there, such as an index"),
        ("tool", "FILE", "send a script or what it needs beside it"),
        ("config", "FILE", "send a configuration file, as it is"),
        ("output", "NAME", "bring back a file that the command writes under this name, and its NAME_files/"),
        ("workdir-output", "NAME", "bring back a file left in the working directory; * and ? match several"),
    ):
        files.add_argument(f"--{name}", action="append", default=[], metavar=metavar, help=text)
    files.add_argument("--extra-files", action="append", dest="extra", metavar="FILE", help="the same as --extra")
    files.add_argument("--output-dir", default=".", metavar="DIR", help="where results go (default: here)")
    _add_travel(command)
    job = command.add_argument_group("the job")
    job.add_argument("--manager", metavar="NAME", help="one of the server's managers (default: _default_)")
    job.add_argument("--env", action="append", default=[], metavar="NAME=VALUE", help="set a variable; may be repeated")
    which = job.add_mutually_exclusive_group()
    which.add_argument("--id", default="", metavar="ID", help="the job's id (default: a random one)")
    which.add_argument(
        "--resume", default="", metavar="ID", help="go on with a job; all other options as they were when it was begun"
    )
    job.add_argument("--keep", action="store_true", help="leave the job and its files on the server")
    job.add_argument("--quiet", action="store_true", help="show the command's own output only")
    _add_server(command)
    broker = command.add_argument_group("the message broker, if --url names one (amqp://, amqps://, ...)")
    broker.add_argument(
        "--amqp",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="an amqp_... option as in server.ini, such as connect_ssl_ca_certs=ca.pem; may be repeated",
    )
    command.add_argument("argv", nargs="+", metavar="COMMAND", help="what to run, behind --")


def _add_travel(command: argparse.ArgumentParser) -> None:
    travel = command.add_argument_group("how files travel")
    travel.add_argument(
        "--file-actions", default="", metavar="FILE", help="rules (YAML or JSON) that say it for each path"
    )
    travel.add_argument(
        "--remote-transfer",
        default="",
        metavar="URL",
        help="the server fetches and delivers them, at a job-files endpoint as Galaxy has it",
    )
    travel.add_argument(
        "--at-a-time", type=_positive, default=8, metavar="N", help="move so many files at once (default: 8)"
    )
    travel.add_argument(
        "--jobs-directory", default="", metavar="DIR", help="the server's staging_directory; needed with a broker"
    )
    travel.add_argument("--receipt", default="", metavar="FILE", help="write down what became of each file (JSON)")


def _positive(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 0 < int(text) <= 100:
        raise argparse.ArgumentTypeError(f"{text} is not a number from 1 to 100")
    return int(text)


def _add_jobs(sub: _Sub[argparse.ArgumentParser]) -> None:
    text = (
        "Look at the jobs of a server, end them, or remove what is left of them.\n\n"
        "examples:\n"
        "  lwr jobs list --state running\n"
        "  lwr jobs show run-4f0c9a1b2d3e\n"
        "  lwr jobs cancel run-4f0c9a1b2d3e"
    )
    # Its own parsers take the options, so that these may stand behind `list` or `show`.
    command = sub.add_parser(
        "jobs",
        help="list, show, cancel or clean jobs of a server",
        description=text,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    what = command.add_subparsers(dest="what", metavar="WHAT", required=True)
    newest = _add_command(what, "list", "the newest jobs", "List jobs, the newest first.")
    newest.add_argument(
        "--state", default="", metavar="STATE", help="only those in this state (running, complete, ...)"
    )
    newest.add_argument("--limit", type=int, default=20, metavar="N", help="at most so many (default: 20)")
    others = (
        _add_command(what, "show", "all about a job", "Show a job: its state, its times, what happened to it and why."),
        _add_command(
            what,
            "receipt",
            "what is known of each file of a job",
            "Show each file of a job, on its way there and back: where it came from or went to, its size and digest,\n"
            "which side moved it, how often it was tried. `lwr verify` checks files against what --json prints.",
        ),
        _add_command(what, "cancel", "end jobs", "End jobs: all their processes. What is over stays as it is."),
        _add_command(
            what, "clean", "remove jobs", "Remove jobs and their files; those that still run are ended first."
        ),
    )
    newest.add_argument("--manager", metavar="NAME", help="only those of this manager")
    for leaf in others:
        leaf.add_argument("--manager", metavar="NAME", help="the manager that has them (default: _default_)")
        leaf.add_argument("ids", nargs="+", metavar="ID", help="the jobs")
    for leaf in (newest, *others):
        _add_server(leaf)


def _add_status(sub: _Sub[argparse.ArgumentParser]) -> None:
    command = _add_command(
        sub,
        "status",
        "show how a server is: managers, message queue, disks",
        "Show how a server is: its managers and their jobs, its message queue, its disks, and what keeps it from\n"
        "taking jobs. Exits with 0 when it takes jobs, with 1 when it does not.\n\n"
        "examples:\n"
        "  lwr status\n"
        "  lwr status --url unix:/srv/lwr/persisted_data/lwr.sock --watch",
    )
    command.add_argument("--watch", action="store_true", help="look again every two seconds, until Ctrl-C")
    _add_server(command)


def _add_submit(sub: _Sub[argparse.ArgumentParser]) -> None:
    command = _add_command(
        sub,
        "submit",
        "run one job from a set-up message",
        "Run the job of one set-up message, and tell of it over the queue of server.ini; take no messages from there.\n"
        "Returns when the job is over and that was told: exits with 0 if it completed. Interrupted or killed, the\n"
        "same command again goes on with the job.\n\n"
        "examples:\n"
        "  lwr submit --file message.json\n"
        "  lwr submit /etc/lwr/server.ini --base64 eyJqb2JfaWQiOi4uLn0=",
    )
    _add_ini(command)
    message = command.add_mutually_exclusive_group(required=True)
    message.add_argument("--base64", metavar="TEXT", help="the message, as a JSON object in base64")
    message.add_argument("--file", metavar="FILE", help="a file with the JSON object; - for stdin")
    command.add_argument("--manager", metavar="NAME", default="_default_", help="whose job it is (default: _default_)")
    command.add_argument(
        "--dialect", choices=("lwr", "pulsar"), default="lwr", help="whose exchange is told (default: lwr)"
    )


def _add_mq(sub: _Sub[argparse.ArgumentParser]) -> None:
    mq = sub.add_parser("mq", help="look at the message queue", description="Look at the message queue.")
    dead = mq.add_subparsers(dest="what", metavar="WHAT", required=True).add_parser(
        "dead",
        help="messages that no server could understand",
        description="Look at the messages that no server could understand, have them handled again, or drop them.\n"
        "Works on the broker itself; no server needs to run. `lwr mq dead` alone lists them.\n\n"
        "examples:\n"
        "  lwr mq dead list --config /etc/lwr/server.ini\n"
        "  lwr mq dead show 4f0c9a1b\n"
        "  lwr mq dead replay 4f0c9a1b",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    verbs = dead.add_subparsers(dest="verb", metavar="WHAT")
    dead.set_defaults(verb="list", json=False, config=None, url=None, exit_error=EXIT_ERROR)
    for verb, summary, text in (
        ("list", "all of them", "List the dead letters, the oldest first."),
        ("show", "all about one", "Show dead letters with what is in them."),
        ("replay", "send them again to where they came from", "Send dead letters again to the queue they came from."),
        ("drop", "remove them", "Remove dead letters for good."),
    ):
        leaf = _add_command(verbs, verb, summary, text)
        if verb != "list":
            leaf.add_argument("ids", nargs="*", metavar="ID", help="its id, or so much of it that no other begins so")
            leaf.add_argument("--all", action="store_true", help="all of them")
        leaf.add_argument("--config", metavar="server.ini", help="the server's configuration (default: ./server.ini)")
        leaf.add_argument("--url", metavar="URL", help="the broker; a password in it stands in the process list")


def _add_verify(sub: _Sub[argparse.ArgumentParser]) -> None:
    command = _add_command(
        sub,
        "verify",
        "check files against the receipt of a job",
        "Read files from the disk and compare them with a receipt. Exits with 1 when one is not as it was.\n\n"
        "examples:\n"
        "  lwr jobs receipt run-4f0c9a1b2d3e --json | lwr verify -     on the server: the job's own files\n"
        "  lwr run --receipt r.json ... && lwr verify r.json           where the results are",
    )
    command.add_argument("receipts", nargs="+", metavar="RECEIPT", help="a file with a receipt in JSON; - for stdin")
    command.add_argument(
        "--in", dest="inside", metavar="DIR", help="look for the results below DIR, by their names in the job"
    )


def _add_check(sub: _Sub[argparse.ArgumentParser]) -> None:
    command = _add_command(
        sub,
        "check",
        "test a server with a real job",
        "Send a real job through every kind of file, and say what works. Exits with 0 if all does, else 1.\n\n"
        "examples:\n"
        "  lwr check\n"
        "  lwr check --url https://cluster.example.org:8913/managers/long --token-file token",
    )
    command.set_defaults(exit_error=1)
    _add_server(command)
    command.add_argument(
        "--private-token", metavar="T", help="the secret itself; others can read it in the process list"
    )
    command.add_argument("--test-errors", action="store_true", help="also make requests that the server must refuse")
    command.add_argument("--quiet", action="store_true", help="print the verdict only")
    command.add_argument("--keep", action="store_true", help="leave the job on the server")


if __name__ == "__main__":
    sys.exit(main())
