#!/usr/bin/env bash
# One member of the ensembles that the C client's tests start. They call $ZKROOT/bin/zkServer.sh, with a zoo.cfg that they
# have written and that the server may edit:
#   member.sh start|stop|status ZOO.CFG    as zkServer.sh does: start does not wait; status prints what `srvr` says
# A member outlives this script; its process id is in a file beside its zoo.cfg.
#   CONF_SERVER       the kind of server
#   SERVER_JVMFLAGS   set by a test: -D properties
set -euo pipefail
TMPDIR="$CONF_STATE"
. "$CONF_LIB_DIR/lib.sh"
trap - EXIT
rmdir "$CONF_TMP"

config="$2"
pid_file="${config%.conf}.pid"

# Behind a reconfiguration the file of members says it.
client_port() {
  local members
  sed -n 's/^clientPort=//p' "$config" | grep . && return
  members="$(sed -n 's/^dynamicConfigFile=//p' "$config")"
  sed -n "s/^server\.$(basename "$config" .conf)=.*[;:]//p" "$members"
}

case "$1" in
  start)
    # Of several on one machine only one could have the port of the admin server.
    export SERVER_JVMFLAGS="${SERVER_JVMFLAGS:-} -Dzookeeper.admin.enableServer=false"
    if [[ "$CONF_SERVER" == apache ]]; then
      . "$CONF_LIB_DIR/apache.sh"
      read -r -a flags <<<"$SERVER_JVMFLAGS"
      command=("$APACHE_JAVA" -Xmx256m -XX:TieredStopAtLevel=1 -Dzookeeper.log.level=WARN "${flags[@]}"
        -cp "$(apache_classpath)" org.apache.zookeeper.server.quorum.QuorumPeerMain)
    else
      command=("$PADDOCK_BIN" server)
    fi
    "${command[@]}" "$config" >>"${config%.conf}.log" 2>&1 </dev/null &
    printf '%s\n' $! >"$pid_file"
    ;;
  stop)
    [[ -s "$pid_file" ]] || exit 0
    pid="$(<"$pid_file")"
    rm "$pid_file"
    kill -TERM "$pid" 2>/dev/null || exit 0
    # It is no child of this shell: what is left of it once it is dead waits to be reaped, and holds nothing.
    for ((tenths = 0; tenths < 100; tenths++)); do
      state="$(sed 's/.*) //' "/proc/$pid/stat" 2>/dev/null)" && [[ "$state" != [ZX]* ]] || exit 0
      sleep 0.1
    done
    kill -KILL "$pid" 2>/dev/null || true
    ;;
  status)
    four_letter "$(client_port)" srvr 2>/dev/null || true
    ;;
  *)
    say "a member has no $1"
    exit 2
    ;;
esac
