"""What a cluster offers to the steps: one YAML of accelerator profiles, and how training jobs and checks use them."""

from visavis.cluster.config import (
    Cluster,
    Environment,
    Needs,
    Retries,
    Training,
    bundled_cluster,
    read_cluster,
)
from visavis.cluster.profiles import Placement, Profile, Toleration

__all__ = [
    "Cluster",
    "Environment",
    "Needs",
    "Placement",
    "Profile",
    "Retries",
    "Toleration",
    "Training",
    "bundled_cluster",
    "read_cluster",
]
