"""same.py RENDERED-BY-HELM RENDERED-BY-KUSTOMIZE: the two ways to deploy are one: the same pod, but for names and labels."""

import sys

import yaml


def pod(path):
    (deployment,) = [one for one in yaml.safe_load_all(open(path)) if one and one["kind"] == "Deployment"]
    spec = deployment["spec"]
    template = spec["template"]["spec"]
    for volume in template["volumes"]:
        if "configMap" in volume:
            volume["configMap"]["name"] = "any"
    assert spec["template"]["metadata"]["labels"]["testrun-exporter"] == "true", path
    return {"replicas": spec["replicas"], "strategy": spec["strategy"], "pod": template}


def differences(one, other, path=""):
    if isinstance(one, dict) and isinstance(other, dict):
        for key in sorted({*one, *other}):
            yield from differences(one.get(key), other.get(key), f"{path}.{key}")
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for index, pair in enumerate(zip(one, other)):
            yield from differences(*pair, f"{path}[{index}]")
    elif one != other:
        yield f"{path}: {one!r} and {other!r}"


found = list(differences(*map(pod, sys.argv[1:])))
print("\n".join(found) or "the chart and kustomize deploy the same pod")
sys.exit(bool(found))
