# shellcheck shell=bash disable=SC2034,SC1091
# Where the shims find the programs they stand in for. Sourced by them; sets PADDOCK_BIN, REAL_JAVA and APACHE_CP
# without touching the environment or the network.
CONF_LIB="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
CONF_CACHE="${PADDOCK_CACHE:-$HOME/.cache/paddock}/conformance"
PADDOCK_BIN="${PADDOCK_BIN:-${CARGO_TARGET_DIR:-$HOME/.cache/paddock/target}/release/paddock}"
APACHE_CP="$CONF_LIB/apache-conf:$CONF_CACHE/apache/${APACHE_VERSION:-3.9.5}/lib/*"

# The first java on PATH that is no shim of ours.
real_java() {
  local dir
  if [[ -n "${PADDOCK_REAL_JAVA:-}" ]]; then
    printf '%s\n' "$PADDOCK_REAL_JAVA"
    return
  fi
  while IFS= read -r -d: dir; do
    [[ "$(readlink -f "$dir")" == "$CONF_LIB"/shim || "$dir" == *paddock-conformance.* ]] && continue
    if [[ -x "$dir/java" ]]; then
      printf '%s\n' "$dir/java"
      return
    fi
  done <<<"$PATH:"
  printf '/usr/bin/java\n'
}
REAL_JAVA="$(real_java)"
