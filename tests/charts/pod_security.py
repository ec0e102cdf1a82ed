"""Kubernetes' Pod Security Standard "restricted", and the rules of this house on top of it.

Source: https://kubernetes.io/docs/concepts/security/pod-security-standards/ (Kubernetes 1.37).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

_VOLUMES = {
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "image",
    "persistentVolumeClaim",
    "projected",
    "secret",
}
_SECCOMP = ("RuntimeDefault", "Localhost")
_SYSCTLS = {
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ping_group_range",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.tcp_wmem",
}
_SELINUX = ("", "container_t", "container_init_t", "container_kvm_t", "container_engine_t")
_KINDS = ("containers", "initContainers", "ephemeralContainers")


def violations(pod: Mapping[str, Any]) -> list[str]:
    """Returns what a namespace that enforces "restricted" would refuse."""
    return [*_of_pod(pod), *(each for box in _boxes(pod) for each in _of_container(box, pod))]


def house_rules(pod: Mapping[str, Any]) -> list[str]:
    """Returns what is less than this chart promises: a root that nobody writes, no token that nobody needs."""
    found = []
    if "automountServiceAccountToken" not in pod:
        found.append("automountServiceAccountToken is not said")
    for box in _boxes(pod):
        if not box.get("securityContext", {}).get("readOnlyRootFilesystem"):
            found.append(f"{box['name']}: the root can be written")
        mounts = {mount["mountPath"]: mount["name"] for mount in box.get("volumeMounts", [])}
        volumes = {volume["name"]: volume for volume in pod.get("volumes", [])}
        if "emptyDir" not in volumes.get(mounts.get("/tmp", ""), {}):
            found.append(f"{box['name']}: /tmp cannot be written")
    return found


def _boxes(pod: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    for kind in _KINDS:
        yield from pod.get(kind, [])


def _of_pod(pod: Mapping[str, Any]) -> Iterator[str]:
    context = pod.get("securityContext", {})
    for field in ("hostNetwork", "hostPID", "hostIPC"):
        if pod.get(field):
            yield f"{field} is on"
    for volume in pod.get("volumes", []):
        if kinds := set(volume) - {"name"} - _VOLUMES:
            yield f"volume {volume['name']} is of the kind {kinds.pop()}"
    for sysctl in context.get("sysctls", []):
        if sysctl["name"] not in _SYSCTLS:
            yield f"sysctl {sysctl['name']}"
    if context.get("runAsUser") == 0:
        yield "runAsUser is 0"
    yield from _of_labels(context, "pod")


def _of_labels(context: Mapping[str, Any], where: str) -> Iterator[str]:
    selinux = context.get("seLinuxOptions", {})
    if selinux.get("type", "") not in _SELINUX or selinux.get("user") or selinux.get("role"):
        yield f"{where}: SELinux options"
    if context.get("appArmorProfile", {}).get("type", "RuntimeDefault") == "Unconfined":
        yield f"{where}: AppArmor is unconfined"
    if context.get("windowsOptions", {}).get("hostProcess"):
        yield f"{where}: host process"


def _of_container(box: Mapping[str, Any], pod: Mapping[str, Any]) -> Iterator[str]:
    own, outer, name = box.get("securityContext", {}), pod.get("securityContext", {}), box["name"]
    yield from _of_labels(own, name)
    if own.get("privileged"):
        yield f"{name}: privileged"
    if own.get("allowPrivilegeEscalation") is not False:
        yield f"{name}: allowPrivilegeEscalation is not false"
    if own.get("runAsNonRoot", outer.get("runAsNonRoot")) is not True:
        yield f"{name}: runAsNonRoot is not true"
    if own.get("runAsUser") == 0:
        yield f"{name}: runAsUser is 0"
    if own.get("seccompProfile", outer.get("seccompProfile", {})).get("type") not in _SECCOMP:
        yield f"{name}: no seccomp profile"
    if own.get("procMount", "Default") != "Default":
        yield f"{name}: procMount"
    capabilities = own.get("capabilities", {})
    if "ALL" not in capabilities.get("drop", []):
        yield f"{name}: capabilities are not dropped"
    if added := set(capabilities.get("add", [])) - {"NET_BIND_SERVICE"}:
        yield f"{name}: capability {added.pop()} is added"
    if any(port.get("hostPort") for port in box.get("ports", [])):
        yield f"{name}: hostPort"
