#!/usr/bin/env bash
# Stands in for Apache's zkCli.sh: the same options and commands.
set -euo pipefail
# shellcheck source=../resolve.sh
. "$(dirname "$(readlink -f "$0")")/../resolve.sh"
if [[ "${CONF_SERVER:-paddock}" != apache ]]; then
  exec -a zkCli.sh "$PADDOCK_BIN" "$@"
fi
read -r -a flags <<<"${CLIENT_JVMFLAGS:-} ${JVMFLAGS:-}"
exec "$REAL_JAVA" -Xmx256m -XX:TieredStopAtLevel=1 -Dzookeeper.log.level=WARN ${flags[@]+"${flags[@]}"} \
  -cp "$APACHE_CP" org.apache.zookeeper.ZooKeeperMain "$@"
