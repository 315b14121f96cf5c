# shellcheck shell=bash disable=SC2034,SC1091
# Apache ZooKeeper, the server to compare with. Source it after lib.sh.
#
#   APACHE_VERSION      the release (3.9.5 unless set); 3.8 is Debian's package, or the last 3.8 where there is no such package
#   APACHE_JAVA         the real java, whatever shim is first on PATH
#   apache_fetch        fill the class path folder through Maven, once
#   APACHE_LIB          that folder: ZooKeeper's jar and its run-time dependencies
#   apache_classpath    print the class path: a logging configuration, then every jar
#   maven_copy POM DIR [MAVEN-OPTION...]   copy a pom's dependencies into DIR, once per pom and options

APACHE_VERSION="${APACHE_VERSION:-3.9.5}"
APACHE_LIB="$CONF_CACHE/apache/$APACHE_VERSION/lib"

# shellcheck source=resolve.sh
. "$(dirname "${BASH_SOURCE[0]}")/resolve.sh"
APACHE_JAVA="$REAL_JAVA"

maven_copy_once() {
  local pom="$1" dir="$2" stamp work
  shift 2
  stamp="$(cat "$pom" - <<<"$*" | sha256sum | cut -d' ' -f1)"
  [[ "$(cat "$dir/.complete" 2>/dev/null)" == "$stamp" ]] && return 0
  need mvn
  say "fetching $(basename "$pom" .xml) through Maven"
  work="$(mktemp -d "$CONF_CACHE/maven.XXXXXX")"
  cp "$pom" "$work/pom.xml"
  # Version ranges of plug-ins resolve to what is newest; pinning keeps a run repeatable.
  if ! retry 3 mvn -q -B -f "$work/pom.xml" "$@" \
    org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy-dependencies \
    -DoutputDirectory="$work/lib" -DincludeScope=runtime >&2; then
    rm -rf "$work"
    return 1
  fi
  rm -rf "$dir"
  mkdir -p "$(dirname "$dir")"
  mv "$work/lib" "$dir"
  printf '%s\n' "$stamp" >"$dir/.complete"
  rm -rf "$work"
}

maven_copy() { locked maven maven_copy_once "$@" || die "Maven could not fetch $(basename "$1" .xml)"; }

# ZooKeeper's two jars as Debian ships them, unpacked and not installed, with the other jars of the release from Maven.
debian_copy_once() {
  local dir="$1" rest="$2" work jar
  [[ -e "$dir/.complete" ]] && return 0
  work="$(mktemp -d "$CONF_CACHE/debian.XXXXXX")"
  if ! (cd "$work" && apt-get -q download libzookeeper-java && dpkg-deb -x libzookeeper-java_*.deb package) >&2; then
    rm -rf "$work"
    return 1
  fi
  mkdir "$work/lib"
  for jar in "$rest"/*.jar; do
    [[ "$(basename "$jar")" == zookeeper-* ]] || cp "$jar" "$work/lib"
  done
  # Without their manifests: those name the class path of an installed package.
  python3 - "$work/package/usr/share/java" "$work/lib" <<'PY' || return 1
import sys, zipfile

for name in ("zookeeper", "zookeeper-jute"):
    with zipfile.ZipFile(f"{sys.argv[1]}/{name}.jar") as jar, zipfile.ZipFile(f"{sys.argv[2]}/{name}-3.8.0.jar", "w") as copy:
        for entry in jar.infolist():
            if entry.filename != "META-INF/MANIFEST.MF":
                copy.writestr(entry, jar.read(entry))
PY
  rm -rf "$dir"
  mkdir -p "$(dirname "$dir")"
  mv "$work/lib" "$dir"
  touch "$dir/.complete"
  rm -rf "$work"
}

apache_fetch() {
  local pom="$CONF_DIR/lib/apache-pom.xml" rest="$CONF_CACHE/apache/3.9.5/lib"
  need "$APACHE_JAVA"
  if [[ "$APACHE_VERSION" != 3.8 ]]; then
    maven_copy "$pom" "$APACHE_LIB" "-Dzookeeper.version=$APACHE_VERSION"
    return
  fi
  maven_copy "$pom" "$rest" "-Dzookeeper.version=3.9.5"
  if [[ ! -e "$APACHE_LIB/.complete" ]] && ! locked debian debian_copy_once "$APACHE_LIB" "$rest"; then
    say "Debian's libzookeeper-java could not be had: 3.8.4 from Maven instead"
    maven_copy "$pom" "$APACHE_LIB" "-Dzookeeper.version=3.8.4"
  fi
}

apache_classpath() { printf '%s\n' "$APACHE_CP"; }
