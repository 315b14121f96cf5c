# shellcheck shell=bash disable=SC2034,SC1091
# Shared pieces of the conformance suites: cache folders, retries, servers on loopback. Source it from bash:
#
#   . "$(dirname "${BASH_SOURCE[0]}")/../lib/lib.sh"
#
# What it offers
#   CONF_DIR, CONF_CACHE   the conformance folder; the cache that downloads go to
#   PADDOCK_BIN            the binary under test (override it to test another build)
#   say TEXT               a progress line on standard error
#   retry N CMD...         run CMD up to N times, waiting a little longer each time
#   locked NAME CMD...     run CMD while holding the cache lock NAME, so two suites never fill one folder at once
#   need CMD...            exit 2 unless every command is on PATH
#   free_port [FROM TO]    print a loopback port nobody listens on
#   start_server KIND PORT [LINE...]   start a server with a fresh data folder and the given extra zoo.cfg lines;
#                          KIND is apache or paddock; -D properties go in SERVER_JVMFLAGS. Sets SERVER_PID and
#                          SERVER_DIR (zoo.cfg, data, log), and returns once the server answers `srvr`
#   stop_server [PID]      SIGTERM, then SIGKILL after ten seconds; without PID the last one started
#   four_letter PORT WORD  print the answer to a four-letter word
#   conf_tmp               print the run's scratch folder (removed on exit; CONF_KEEP=1 keeps it)
#   parse_args "$@"        the options every suite has: sets SERVER, QUICK, JSON_OUT and the array REST
# Servers left running are stopped when the script exits.

CONF_DIR="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
CONF_CACHE="${PADDOCK_CACHE:-$HOME/.cache/paddock}/conformance"
PADDOCK_BIN="${PADDOCK_BIN:-${CARGO_TARGET_DIR:-$HOME/.cache/paddock/target}/release/paddock}"
mkdir -p "$CONF_CACHE"

SERVER_PID=""
SERVER_DIR=""
CONF_TMP=""
CONF_PIDS=()

say() { printf '%s\n' "$*" >&2; }

die() {
  say "$*"
  exit 2
}

need() {
  local command
  for command in "$@"; do
    command -v "$command" >/dev/null || die "this suite needs $command on PATH"
  done
}

retry() {
  local tries="$1" try
  shift
  for ((try = 1; try <= tries; try++)); do
    "$@" && return 0
    say "try $try of $tries failed: $*"
    ((try < tries)) && sleep $((try * 5))
  done
  return 1
}

locked() {
  local lock="$CONF_CACHE/.$1.lock"
  shift
  (
    flock 9
    "$@" 9>&-
  ) 9>"$lock"
}

# The scratch folder. Call it once outside a command substitution before relying on the exit clean-up.
conf_tmp() {
  if [[ -z "$CONF_TMP" ]]; then
    CONF_TMP="$(mktemp -d "${TMPDIR:-/tmp}/paddock-conformance.XXXXXX")"
  fi
  printf '%s\n' "$CONF_TMP"
}

conf_cleanup() {
  local status=$? pid
  for pid in ${CONF_PIDS[@]+"${CONF_PIDS[@]}"}; do
    stop_server "$pid" || true
  done
  if [[ -n "$CONF_TMP" && -z "${CONF_KEEP:-}" ]]; then
    rm -rf "$CONF_TMP"
  elif [[ -n "$CONF_TMP" ]]; then
    say "kept $CONF_TMP"
  fi
  return "$status"
}
trap conf_cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
conf_tmp >/dev/null

parse_args() {
  SERVER=paddock QUICK="" JSON_OUT="" REST=()
  while (($#)); do
    case "$1" in
      --server) SERVER="${2:?--server needs a value}" && shift 2 ;;
      --server=*) SERVER="${1#*=}" && shift ;;
      --json) JSON_OUT="${2:?--json needs a file}" && shift 2 ;;
      --json=*) JSON_OUT="${1#*=}" && shift ;;
      --quick) QUICK=1 && shift ;;
      -h | --help)
        say "usage: $0 [--server paddock|apache] [--quick] [--json FILE] [case...]"
        exit 0
        ;;
      --) shift && REST+=("$@") && break ;;
      -*) die "unknown option $1" ;;
      *) REST+=("$1") && shift ;;
    esac
  done
  case "$SERVER" in
    apache) ;;
    paddock) [[ -x "$PADDOCK_BIN" ]] || die "no paddock binary at $PADDOCK_BIN: build it, or set PADDOCK_BIN" ;;
    *) die "--server must be paddock or apache, not $SERVER" ;;
  esac
}

free_port() {
  python3 - "${1:-21000}" "${2:-21999}" <<'PY'
import random, socket, sys
low, high = int(sys.argv[1]), int(sys.argv[2])
ports = list(range(low, high + 1))
random.shuffle(ports)
for port in ports:
    with socket.socket() as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            s.bind(("127.0.0.1", port))
        except OSError:
            continue
    print(port)
    sys.exit(0)
sys.exit("no free port in the range")
PY
}

four_letter() {
  python3 - "$1" "$2" <<'PY'
import socket, sys
with socket.create_connection(("127.0.0.1", int(sys.argv[1])), 2) as s:
    s.settimeout(5)
    s.sendall(sys.argv[2].encode())
    while data := s.recv(65536):
        sys.stdout.write(data.decode("utf-8", "replace"))
PY
}

wait_serving() {
  local port="$1" pid="$2" seconds="${3:-30}" end
  end=$((SECONDS + seconds))
  while ((SECONDS < end)); do
    kill -0 "$pid" 2>/dev/null || return 1
    four_letter "$port" srvr 2>/dev/null | grep -q '^Mode:' && return 0
    sleep 0.1
  done
  return 1
}

# Runs in the caller's shell, so that SERVER_PID is the server itself and can be signalled.
start_server() {
  local kind="$1" port="$2" line
  shift 2
  SERVER_DIR="$(mktemp -d "$CONF_TMP/server.XXXXXX")"
  mkdir -p "$SERVER_DIR/data"
  {
    printf '%s\n' "tickTime=2000" "dataDir=$SERVER_DIR/data" "clientPort=$port" "clientPortAddress=127.0.0.1" \
      "maxClientCnxns=0" "admin.enableServer=false" "4lw.commands.whitelist=*"
    for line in "$@"; do printf '%s\n' "$line"; done
  } >"$SERVER_DIR/zoo.cfg"
  restart_server "$kind" "$port" "$SERVER_DIR"
}

# restart_server KIND PORT DIR: start a server again on the folder of an earlier start_server.
restart_server() {
  local kind="$1" port="$2" flags=()
  SERVER_DIR="$3"
  read -r -a flags <<<"${SERVER_JVMFLAGS:-}"
  case "$kind" in
    apache)
      # shellcheck source=/dev/null
      declare -F apache_classpath >/dev/null || . "$CONF_DIR/lib/apache.sh"
      apache_fetch
      "$APACHE_JAVA" -Xmx512m -XX:TieredStopAtLevel=1 -Dzookeeper.log.level=WARN ${flags[@]+"${flags[@]}"} \
        -cp "$(apache_classpath)" org.apache.zookeeper.server.quorum.QuorumPeerMain "$SERVER_DIR/zoo.cfg" \
        >>"$SERVER_DIR/log" 2>&1 </dev/null &
      ;;
    paddock)
      SERVER_JVMFLAGS="${SERVER_JVMFLAGS:-}" "$PADDOCK_BIN" server "$SERVER_DIR/zoo.cfg" \
        >>"$SERVER_DIR/log" 2>&1 </dev/null &
      ;;
    *) die "unknown server kind $kind" ;;
  esac
  SERVER_PID=$!
  CONF_PIDS+=("$SERVER_PID")
  if ! wait_serving "$port" "$SERVER_PID" 40; then
    say "the $kind server did not serve on port $port; its log ends:"
    tail -n 20 "$SERVER_DIR/log" >&2 || true
    stop_server "$SERVER_PID"
    return 2
  fi
}

stop_server() {
  local pid="${1:-$SERVER_PID}" tenths other left=()
  [[ -n "$pid" ]] || return 0
  if kill -TERM "$pid" 2>/dev/null; then
    for ((tenths = 0; tenths < 100; tenths++)); do
      kill -0 "$pid" 2>/dev/null || break
      sleep 0.1
    done
    kill -KILL "$pid" 2>/dev/null || true
  fi
  wait "$pid" 2>/dev/null || true
  for other in ${CONF_PIDS[@]+"${CONF_PIDS[@]}"}; do
    [[ "$other" == "$pid" ]] || left+=("$other")
  done
  CONF_PIDS=(${left[@]+"${left[@]}"})
}
