#!/usr/bin/env bash
# install-prometheus.sh DIRECTORY
#
# Brings two Prometheus servers for the ignored tests of tests/it/prometheus.rs: the one of this Debian release, installed
# as usual, and a 3.x of a newer suite, unpacked below DIRECTORY. A released suite keeps its old version for years, and both
# are what people run. The system's package lists, keys and installed packages stay as they are for the second one.
set -euo pipefail

MAJOR=3
# The newest first; packages move from sid to the testing suite, and some day a release has them.
SUITES=(forky sid trixie)
KEYRING=/usr/share/keyrings/debian-archive-keyring.gpg

directory=${1:?usage: install-prometheus.sh DIRECTORY}
mkdir -p "$directory"
directory=$(realpath "$directory")

root=()
[ "$(id -u)" = 0 ] || root=(sudo)

major_of() {
  "$1" --version 2>&1 | sed -n 's/^prometheus, version \([0-9]*\)\..*/\1/p'
}

if ! command -v prometheus >/dev/null || ! command -v promtool >/dev/null; then
  "${root[@]}" apt-get update -q
  "${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -yq --no-install-recommends prometheus
fi
prometheus --version 2>&1 | head -n 1

if [ -x "$directory/usr/bin/promtool" ] && [ "$(major_of "$directory/usr/bin/prometheus")" = "$MAJOR" ]; then
  echo "$directory has Prometheus $MAJOR already"
  exit 0
fi

# A second apt that shares nothing with the system's but the mirror's address.
apt=$(mktemp -d)
trap 'rm -rf "$apt"' EXIT
mkdir -p "$apt"/{lists/partial,archives/partial,packages}
# shellcheck disable=SC2016 # apt's own placeholder
mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | grep -v security | head -n 1)
cat >"$apt/apt.conf" <<CONF
Dir::Etc::SourceList "$apt/sources.list";
Dir::Etc::SourceParts "/dev/null";
Dir::State::Lists "$apt/lists";
Dir::State::Status "/dev/null";
Dir::Cache "$apt";
Dir::Cache::Archives "$apt/archives";
APT::Sandbox::User "$(id -un)";
APT::Get::AllowUnauthenticated "false";
Acquire::Languages "none";
Acquire::IndexTargets::deb::DEP-11::DefaultEnabled "false";
CONF

# Unpacks this suite's programs into the directory; fails if the suite has none of the wanted version.
unpack() {
  local suite=$1 package
  echo "deb [signed-by=$KEYRING] ${mirror:-http://deb.debian.org/debian/} $suite main" >"$apt/sources.list"
  APT_CONFIG=$apt/apt.conf apt-get update -q || return
  rm -rf "$apt/packages" "${directory:?}/usr"
  mkdir "$apt/packages"
  (cd "$apt/packages" && APT_CONFIG=$apt/apt.conf apt-get download -q prometheus promtool) || return
  for package in "$apt/packages"/*.deb; do
    dpkg --extract "$package" "$directory" || return
  done
  [ "$(major_of "$directory/usr/bin/prometheus")" = "$MAJOR" ]
}

for suite in "${SUITES[@]}"; do
  if unpack "$suite"; then
    "$directory/usr/bin/prometheus" --version 2>&1 | head -n 1
    exit 0
  fi
  echo "$suite has no Prometheus $MAJOR for this machine" >&2
done
echo "no suite has Prometheus $MAJOR: ${SUITES[*]}" >&2
exit 1
