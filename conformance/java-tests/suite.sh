# shellcheck shell=bash disable=SC1091
# ZooKeeper's own Java tests of one release, with its client, against a server in a process of its own. Source it with
# the suite's arguments after setting
#   SUITE_NAME       the suite's folder, which has classes.txt and expected.txt
#   CLIENT_VERSION   the release that the client and the tests are of; empty for that of the server
#   CLIENT_POM       the pom in this folder that has what they need
#   CLIENT_SHADOW    the folder here with what the shadow classes have for that release
#   FIRST_SHARE      the tests pick ports for themselves out of a share of 215 for each JVM: share 52 is 22186-22400,
#                    53 is 22401-22615, ...
#   CLIENT_PORTS     LOW-HIGH, the ports that the shadow classes pick
# The tests are those Apache publishes; a listener class of ours (shadow/) starts the server process where they would
# start a server inside their JVM. CONF_JOBS sets how many JVMs run at a time (3: they mostly wait).
TESTS="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
. "$TESTS/../lib/lib.sh"
. "$CONF_DIR/lib/apache.sh"
parse_args "$@"
need javac python3

SUITE="$CONF_DIR/$SUITE_NAME"
CLIENT_VERSION="${CLIENT_VERSION:-$APACHE_VERSION}"
LIB="$CONF_CACHE/java-tests/$CLIENT_VERSION/lib"
maven_copy "$TESTS/$CLIENT_POM" "$LIB" "-Dzookeeper.version=$CLIENT_VERSION"
apache_fetch

work="$(conf_tmp)"
# shellcheck disable=SC2046
javac -nowarn -proc:none -cp "$LIB/*" -d "$work/classes" \
  $(find "$TESTS/harness/java" "$TESTS/shadow" "$TESTS/$CLIENT_SHADOW" -name '*.java') ||
  die "the shadow classes do not compile"

partial=()
[[ -z "$QUICK" && ${#REST[@]} -eq 0 ]] || partial=(--partial)
started=$SECONDS
# The super user (super:test) is the one that the tests' own build sets.
python3 "$TESTS/harness/suite.py" --classes "$SUITE/classes.txt" --expected "$SUITE/expected.txt" --server "$SERVER" \
  --results "$work/results" --work "$work/jvm" --jobs "${CONF_JOBS:-3}" --ports "$CLIENT_PORTS" --first-share "$FIRST_SHARE" \
  ${QUICK:+--quick} ${CONF_NO_RETRY:+--no-retry} ${REST[@]+"${REST[@]}"} \
  -- "$APACHE_JAVA" -Xmx512m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -cp "$work/classes:$TESTS/$CLIENT_SHADOW:$CONF_DIR/lib/apache-conf:$LIB/*" \
  -Djava.io.tmpdir="{work}" -Dbuild.test.dir="{work}" -Dtest.junit.threads=100 -Dzookeeper.junit.threadid="{threadid}" \
  -Dzookeeper.DigestAuthenticationProvider.superDigest=super:D/InIHSb7yEEbrWz8b9l71RjZJU= \
  -Dzookeeper.serverCnxnFactory=paddock.conformance.ExternalServerCnxnFactory \
  -Dconformance.server="$SERVER" -Dconformance.work="{work}" -Dconformance.ports="{ports}" \
  -Dconformance.server.java="$APACHE_JAVA" -Dconformance.server.classpath="$(apache_classpath)" \
  -Dconformance.server.binary="$PADDOCK_BIN" || die "the tests could not be run"

python3 "$CONF_DIR/lib/report.py" --suite "$SUITE_NAME" --version "$CLIENT_VERSION" --server "$SERVER" \
  --results "$work/results" --expected "$SUITE/expected.txt" --json "$JSON_OUT" --seconds $((SECONDS - started)) \
  ${partial[@]+"${partial[@]}"}
