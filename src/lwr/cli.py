"""The command line: which commands and options there are. What a command does is in `lwr.commands`.

Must stay light: it imports the parser only, and a command's module when that command was asked for, so that
`lwr --help` and completion answer at once.
"""

from __future__ import annotations

import argparse
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
        return _tell(error, as_json=args.json)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # Who read our output has gone (`lwr jobs list | head`); closing stderr keeps Python from telling so too.
        sys.stderr.close()
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
    _add_check(sub)
    _add_config(sub)
    return top


def _run(args: argparse.Namespace) -> int:
    from importlib import import_module

    code: int = import_module(f"lwr.commands.{args.command}").run(args)
    return code


def _tell(error: Exception, *, as_json: bool) -> int:
    from lwr.errors import LwrError

    assert isinstance(error, LwrError)
    if as_json:
        import json

        report = {"error": error.code, "message": error.message, "hint": error.hint}
        sys.stdout.write(json.dumps(report) + "\n")
    else:
        hint = f"     {error.hint}\n" if error.hint else ""
        sys.stderr.write(f"lwr: {error.message}\n{hint}")
    return EXIT_ERROR


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
    command.add_argument("ini", nargs="?", metavar="server.ini", help="the configuration (default: ./server.ini)")
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
    command = _add_command(
        sub,
        "config",
        "check or show a configuration",
        "Check a configuration, or show each option with its value and where that came from.\n\n"
        "examples:\n"
        "  lwr config check\n"
        "  lwr config show /etc/lwr/server.ini",
    )
    command.add_argument("what", choices=("check", "show"), help="check it, or show all values (secrets hidden)")
    command.add_argument("ini", nargs="?", metavar="server.ini", help="the configuration (default: ./server.ini)")


def _add_server(command: argparse.ArgumentParser) -> None:
    """How a client finds its server."""
    command.add_argument(
        "--url", metavar="URL", help="the server (default: the variable LWR_URL, or http://localhost:8913/)"
    )
    command.add_argument(
        "--token-file",
        metavar="FILE",
        help="file that holds the server's secret (default: the variable LWR_TOKEN_FILE)",
    )


def _add_run(sub: _Sub[argparse.ArgumentParser]) -> None:
    command = _add_command(
        sub,
        "run",
        "run a command on a server",
        "Run a command on a server: files go there, the command runs, its outputs come back.\n"
        "Exits with the command's code.\n\n"
        "example:\n"
        "  lwr run --input reads.fastq --output counts.txt -- sh -c 'wc -l reads.fastq > counts.txt'",
    )
    _add_server(command)
    command.add_argument("--input", action="append", default=[], metavar="FILE", help="file to send")
    command.add_argument("--output", action="append", default=[], metavar="NAME", help="file to bring back")
    command.add_argument("argv", nargs="+", metavar="COMMAND", help="what to run, behind --")


def _add_jobs(sub: _Sub[argparse.ArgumentParser]) -> None:
    command = _add_command(
        sub,
        "jobs",
        "list, show, cancel or clean jobs of a server",
        "Look at the jobs of a server, end them, or remove what is left of them.\n\n"
        "examples:\n"
        "  lwr jobs list --state running\n"
        "  lwr jobs show 1234",
    )
    _add_server(command)
    command.add_argument("what", choices=("list", "show", "cancel", "clean"))
    command.add_argument("id", nargs="?", metavar="ID", help="the job, for all but list")


def _add_check(sub: _Sub[argparse.ArgumentParser]) -> None:
    command = _add_command(
        sub,
        "check",
        "test a server with a real job",
        "Send a real job through every kind of file, and say what works.\n\n"
        "example:\n"
        "  lwr check --url https://cluster.example.org:8913/ --token-file token",
    )
    _add_server(command)


if __name__ == "__main__":
    sys.exit(main())
