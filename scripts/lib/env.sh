# Sourced by every script here: one target folder, one profile, one way to show progress.
#
#   ROOT                the repository
#   CARGO_TARGET_DIR    shared by all checkouts, so RocksDB (tens of minutes of C++) is compiled once per machine
#   RELAXED_IN_TESTS    lints that only shipped code must pass, as -A options
#   PURE                the packages that need no RocksDB, as -p options
#   step NAME CMD...    run CMD, saying what runs and how many seconds it took; stop at the first failure
#
# Always --release: the binary and its tests share one build of every dependency. What touches zk-storage is built with
# --workspace, never with -p: a narrower selection unifies features differently and would build other copies.

ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)"
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/paddock/target}"
export CARGO_TERM_COLOR="${CARGO_TERM_COLOR:-auto}"

PURE=()
for package in zk-jute zk-proto zk-tree zk-session zk-zab zk-processor zk-config zk-testkit zk-sim; do
  [[ -f "$ROOT/crates/$package/Cargo.toml" ]] && PURE+=(-p "$package")
done

RELAXED_IN_TESTS=(
  -A clippy::unwrap_used -A clippy::let_underscore_must_use -A clippy::indexing_slicing
  -A clippy::cast_possible_truncation -A clippy::cast_sign_loss
  -A clippy::disallowed_methods -A clippy::disallowed_types
  -A missing_docs -A unreachable_pub
)

say() { printf '%s\n' "$*" >&2; }

step() {
  local name="$1" begun=$SECONDS status=0
  shift
  say "==> $name"
  "$@" || status=$?
  if ((status)); then
    say "==> $name: FAILED after $((SECONDS - begun)) s (exit $status): $*"
    exit "$status"
  fi
  say "==> $name: ok, $((SECONDS - begun)) s"
}
