"""for_podman.py PORT...: makes rendered manifests (stdin) into some that this podman can play (stdout).

What `podman kube play` cannot do is taken out here, by name, so that everything else is played as it would be deployed:
probes need a systemd, fsGroup is not obeyed (so files of a Secret must be readable by all), and ports are published on all addresses of the machine unless told otherwise. Each PORT is container=port: what the
container's next port becomes on 127.0.0.1.
"""

import sys

import yaml

ports = [argument.split("=") for argument in sys.argv[1:]]
documents = [document for document in yaml.safe_load_all(sys.stdin) if document]
for document in documents:
    if document["kind"] != "Deployment":
        continue
    pod = document["spec"]["template"]["spec"]
    for volume in pod["volumes"]:
        if "secret" in volume:
            volume["secret"]["defaultMode"] = 0o444
    for container in pod["containers"]:
        for probe in ["livenessProbe", "readinessProbe", "startupProbe"]:
            container.pop(probe, None)
        for port in container.get("ports", []):
            (mine, *_) = [pair for pair in ports if pair[0] == container["name"]]
            ports.remove(mine)
            port.update(hostPort=int(mine[1]), hostIP="127.0.0.1")
# What a Deployment refers to comes first.
documents.sort(key=lambda document: document["kind"] == "Deployment")
yaml.safe_dump_all(documents, sys.stdout)
