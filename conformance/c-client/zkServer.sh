#!/usr/bin/env bash
# Starts and stops the server for the C client's tests, which call ./tests/zkServer.sh:
#   zkServer.sh start|startClean [ADDRESS]    a server on port 22181; startClean without the data of the one before
#   zkServer.sh startCleanReadOnly            the same as one of three that is alone, and read-only
#   zkServer.sh stop [ADDRESS]
# Whatever is asked, the server of the call before is killed outright first, as in the script that the tests come with,
# so each start after a stop recovers from a crash. It outlives this script; its process id is in $CONF_STATE/pid.
#   CONF_SERVER, CONF_STATE   the kind of server; the folder that belongs to one run of one test
#   CONF_ADDRESS              the address it listens on (127.0.0.1 unless set)
#   ZKMAXCNXNS                set by a test: the most connections from one address
set -euo pipefail
TMPDIR="$CONF_STATE"
. "$CONF_LIB_DIR/lib.sh"

PORT=22181
address="${CONF_ADDRESS:-127.0.0.1}"

# In place of the shared one, which knows one address.
four_letter() {
  python3 - "$address" "$1" "$2" <<'PY'
import socket, sys
with socket.create_connection((sys.argv[1], int(sys.argv[2])), 2) as s:
    s.settimeout(5)
    s.sendall(sys.argv[3].encode())
    while data := s.recv(65536):
        sys.stdout.write(data.decode("utf-8", "replace"))
PY
}

if [[ -s "$CONF_STATE/pid" ]]; then
  old="$(<"$CONF_STATE/pid")"
  rm "$CONF_STATE/pid"
  kill -KILL "$old" 2>/dev/null || true
  # It is no child of this shell: what is left of it once it is dead waits to be reaped, and holds nothing.
  while state="$(sed 's/.*) //' "/proc/$old/stat" 2>/dev/null)" && [[ "$state" != [ZX]* ]]; do sleep 0.05; done
fi

case "${1:-}" in
  start | startClean | startCleanReadOnly) ;;
  stop) exit 0 ;;
  *)
    say "this server has no $*"
    exit 2
    ;;
esac

export SERVER_JVMFLAGS="-Dzookeeper.extendedTypesEnabled=true -Dznode.container.checkIntervalMs=100"
# The tests' own zoo.cfg.
settings=("clientPortAddress=$address" "tickTime=500" "initLimit=10" "syncLimit=5" "maxClientCnxns=${ZKMAXCNXNS:-100}"
  "localSessionsEnabled=true")
if [[ "$1" == startCleanReadOnly ]]; then
  SERVER_JVMFLAGS+=" -Dreadonlymode.enabled=true"
  dir="$(mktemp -d "$CONF_TMP/server.XXXXXX")"
  mkdir "$dir/data"
  echo 1 >"$dir/data/myid"
  printf '%s\n' "dataDir=$dir/data" "clientPort=$PORT" "admin.enableServer=false" "4lw.commands.whitelist=*" "${settings[@]}" \
    server.1=localhost:22881:22884 server.2=localhost:22882:22885 server.3=localhost:22883:22886 >"$dir/zoo.cfg"
  restart_server "$CONF_SERVER" "$PORT" "$dir"
elif [[ "$1" == start && -e "$CONF_STATE/dir" ]]; then
  restart_server "$CONF_SERVER" "$PORT" "$(<"$CONF_STATE/dir")"
else
  start_server "$CONF_SERVER" "$PORT" "${settings[@]}"
  printf '%s\n' "$SERVER_DIR" >"$CONF_STATE/dir"
fi
printf '%s\n' "$SERVER_PID" >"$CONF_STATE/pid"
# The clean-up of lib.sh would stop it.
trap - EXIT
