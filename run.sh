#!/bin/sh
# Starts an LWR server from this checkout: makes what is missing, then runs `lwr serve server.ini`.
set -eu

usage() {
    cat <<'TEXT'
Usage: ./run.sh [-h] [-m MODE] [OPTION ...]

Starts an LWR server with ./server.ini. What is missing is made first: the virtualenv .venv, and server.ini from
its sample. ./local_env.sh is read if it is there.

  --daemon        start in the background (pid in lwr.pid, log in lwr.log; it was paster.log once)
  --stop-daemon   stop that server
  --status        say whether it runs
  -m, --mode MODE accepted from older start scripts and ignored: LWR is its own web server now
  -h, --help      this text

Other options go to `lwr serve`; `.venv/bin/lwr serve --help` lists them.
If TEST_GALAXY_LIBS is set, nothing starts unless the code in $GALAXY_HOME/lib can be imported.
TEXT
}

cd "$(dirname "$0")"

note() {
    echo "run.sh: $*" >&2
}

ignore_mode() {
    case "$1" in
        uwsgi | circusd | chaussette | paster) note "--mode $1 is not needed any more: LWR is its own web server." ;;
        *)
            note "There is no mode '$1', and none is needed: LWR is its own web server."
            exit 1
            ;;
    esac
}

# Each of the given arguments is looked at once, and put back at the end if it is not for this script.
left=$#
while [ "$left" -gt 0 ]; do
    argument=$1
    shift
    left=$((left - 1))
    case "$argument" in
        -h | --help | '-?')
            usage
            exit 0
            ;;
        -m | --mode)
            if [ "$left" -eq 0 ]; then
                note "$argument needs a mode."
                exit 1
            fi
            ignore_mode "$1"
            shift
            left=$((left - 1))
            ;;
        --mode=*) ignore_mode "${argument#--mode=}" ;;
        --) ;;
        *) set -- "$@" "$argument" ;;
    esac
done

if [ -f local_env.sh ]; then
    set +eu # its author need not write for our strictness
    . ./local_env.sh
    set -eu
fi
if [ ! -x .venv/bin/lwr ]; then
    sh ./setup_venv.sh
fi
if [ -n "${TEST_GALAXY_LIBS:-}" ] && ! PYTHONPATH="${GALAXY_HOME:-}/lib" .venv/bin/python -c 'import galaxy'; then
    note "Galaxy's code cannot be imported from GALAXY_HOME ('${GALAXY_HOME:-}')."
    exit 1
fi
if [ ! -f server.ini ]; then
    # Nobody else should read it, since a secret may be put into it.
    (umask 077 && cp server.ini.sample server.ini)
    note "made server.ini from its sample."
fi
exec .venv/bin/lwr serve server.ini "$@"
