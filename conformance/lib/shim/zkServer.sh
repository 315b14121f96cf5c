#!/usr/bin/env bash
# Stands in for Apache's zkServer.sh where a suite starts its servers through that script:
#   zkServer.sh start-foreground CONFIG
# execs the server, so a signal sent to the script's process reaches it. SERVER_JVMFLAGS and JVMFLAGS carry -D properties.
set -euo pipefail
# shellcheck source=../resolve.sh
. "$(dirname "$(readlink -f "$0")")/../resolve.sh"
if [[ "${CONF_SERVER:-paddock}" != apache ]]; then
  exec -a zkServer.sh "$PADDOCK_BIN" "$@"
fi
if [[ "${1:-}" != start-foreground || -z "${2:-}" ]]; then
  printf 'usage: %s start-foreground CONFIG\n' "$0" >&2
  exit 2
fi
read -r -a flags <<<"${SERVER_JVMFLAGS:-} ${JVMFLAGS:-}"
exec "$REAL_JAVA" -Xmx384m -XX:TieredStopAtLevel=1 -Dzookeeper.log.level=WARN ${flags[@]+"${flags[@]}"} \
  -cp "$APACHE_CP" org.apache.zookeeper.server.quorum.QuorumPeerMain "$2"
