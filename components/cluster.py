"""The cluster that components and pipelines are compiled for: `VISAVIS_CLUSTER`, else `pipelines/cluster.yaml`."""

from pathlib import Path

from visavis.cluster import bundled_cluster

CLUSTER = bundled_cluster(Path(__file__).resolve().parents[1] / "pipelines")
