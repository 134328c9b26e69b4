"""The answer of VersionGet."""

import functools
import os
from dataclasses import dataclass
from importlib.metadata import version

from instance_manager.pb.imrpc import disk_pb2
from instance_manager.pb.imrpc import imrpc_pb2 as pb


@dataclass(frozen=True, slots=True)
class ApiVersion:
    """The latest version of an interface that is spoken, and the earliest one."""

    latest: int
    earliest: int


MANAGER_API = ApiVersion(7, 1)
PROXY_API = ApiVersion(7, 1)
DISK_API = ApiVersion(1, 1)


def manager_versions() -> pb.VersionResponse:
    """Return the versions of the program, and of the process, instance and proxy services."""
    return pb.VersionResponse(
        **_program(),
        instanceManagerAPIVersion=MANAGER_API.latest,
        instanceManagerAPIMinVersion=MANAGER_API.earliest,
        instanceManagerProxyAPIVersion=PROXY_API.latest,
        instanceManagerProxyAPIMinVersion=PROXY_API.earliest,
    )


def disk_versions() -> disk_pb2.DiskVersionResponse:
    """Return the versions of the program and of the disk service."""
    return disk_pb2.DiskVersionResponse(
        **_program(),
        instanceManagerDiskServiceAPIVersion=DISK_API.latest,
        instanceManagerDiskServiceAPIMinVersion=DISK_API.earliest,
    )


@functools.cache
def _program() -> dict[str, str]:
    """Return what VersionGet tells of the program.

    The version is read from a file, once; commit and build date are in the environment, where the image's
    build puts them.
    """
    return {
        "version": version("instance-manager"),
        "gitCommit": os.environ.get("INSTANCE_MANAGER_GIT_COMMIT", ""),
        "buildDate": os.environ.get("INSTANCE_MANAGER_BUILD_DATE", ""),
    }
