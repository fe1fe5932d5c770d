"""What is said of a host and its namespaces."""


def of_container(namespace: str, device: str) -> str:
    """Say that a namespace is a container's, because it has no other device than ``device``."""
    return f"{namespace} has one device, {device}, so it is a container's"
