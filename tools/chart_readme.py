"""Writes charts/visavis/README.md: what the chart makes, and a table of its values from their comments.

.venv/bin/python tools/chart_readme.py
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import yaml

_CHART = Path(__file__).resolve().parents[1] / "charts" / "visavis"
_MARK = "# -- "

_HEAD = """\
# visavis, the chart

What visavis needs in **one namespace** of a cluster. Nothing in it reaches beyond the namespace, and every name begins
with that of the release, so teams share a cluster without meeting. [docs/install.md](../../docs/install.md) goes from an
empty cluster to an installed chart.

| it makes | for |
|---|---|
| TrainingRuntime `<release>-train` | training jobs (Kubeflow Trainer): torchrun and DeepSpeed, `/dev/shm`, NCCL |
| ServiceAccounts `<release>-pipeline`, `-training`, `-serving` | the steps of a pipeline, training jobs, the service; the last two have no rights and no token |
| Role `<release>-pipeline` | make, watch and delete TrainJobs; read pods, logs and events; apply an InferenceService; what KFP's executor reports |
| NetworkPolicies | deny all; then DNS, MLflow, the object store, the nodes of a job among each other, and whoever may ask the service |
| Deployment, Service, PodDisruptionBudget, HorizontalPodAutoscaler | the service without KServe (`serving.mode: deployment`) |
| InferenceService, or the settings of `visavis promote --serving` | the service on KServe (`serving.mode: inferenceservice`) |
| ConfigMap `<release>-env` | addresses and images, as environment variables |
| LocalQueue, ServiceMonitor, ConfigMap `kfp-launcher` | Kueue, Prometheus' operator, KFP's artifacts and its MLflow plugin; each off by default |

Every pod fits a namespace that enforces Pod Security `restricted`: no root, uid 10001, a root that cannot be written, no
capabilities, seccomp's default profile, and a token only where the API server is asked.

Secrets are named in the values and never held by them; a name that sounds like a secret is refused as a plain variable. Values
that exclude each other fail with the field and the fix. `environments/` has values for dev, staging and prod, to which a site
adds its addresses, digests and queue:

```console
helm upgrade --install visavis charts/visavis --namespace team -f charts/visavis/environments/prod.yaml -f site.yaml
```

`tools/chart_readme.py` writes this page; `make chart-test` renders the chart over a matrix of values and checks it.

## Values

| value | default | what it does |
|---|---|---|
"""


def values(text: str) -> Iterator[tuple[str, str, str]]:
    """Yields each value of a values file: its path, its default as JSON, its comment.

    Raises:
        SystemExit: If a value has no comment.
    """
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    assert isinstance(root, yaml.MappingNode)
    yield from _inside(root, "", text.splitlines())


def _inside(node: yaml.MappingNode, path: str, lines: list[str]) -> Iterator[tuple[str, str, str]]:
    for key, value in node.value:
        where = f"{path}.{key.value}".lstrip(".")
        above = lines[key.start_mark.line - 1].strip() if key.start_mark.line else ""
        if above.startswith(_MARK):
            default = yaml.SafeLoader("").construct_document(value)
            yield where, json.dumps(default, ensure_ascii=False), above.removeprefix(_MARK)
        elif isinstance(value, yaml.MappingNode) and value.value:
            yield from _inside(value, where, lines)
        else:
            raise SystemExit(
                f"error: {where} in values.yaml says not what it does\n  fix: put `{_MARK}...` above it"
            )


def page() -> str:
    """Returns the page as it should be."""
    text = (_CHART / "values.yaml").read_text(encoding="utf-8")
    rows = [
        f"| `{path}` | `{default}` | {words} |".replace("||", r"\|\|")
        for path, default, words in values(text)
    ]
    return _HEAD + "\n".join(rows) + "\n"


def main() -> None:
    """Writes the page."""
    (_CHART / "README.md").write_text(page(), encoding="utf-8")
    print(f"charts/visavis/README.md: {page().count(chr(10)) - _HEAD.count(chr(10))} values")


if __name__ == "__main__":
    main()
