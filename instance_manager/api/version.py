"""The answer of VersionGet."""

import os
from importlib.metadata import version

from instance_manager.pb.imrpc import imrpc_pb2 as pb

API_VERSION = 7
API_MIN_VERSION = 1


def version_response() -> pb.VersionResponse:
    """Return the versions of the program and of the interfaces it speaks.

    Commit and build date come from the environment, where the image's build puts them.
    """
    return pb.VersionResponse(
        version=version("instance-manager"),
        gitCommit=os.environ.get("INSTANCE_MANAGER_GIT_COMMIT", ""),
        buildDate=os.environ.get("INSTANCE_MANAGER_BUILD_DATE", ""),
        instanceManagerAPIVersion=API_VERSION,
        instanceManagerAPIMinVersion=API_MIN_VERSION,
        instanceManagerProxyAPIVersion=API_VERSION,
        instanceManagerProxyAPIMinVersion=API_MIN_VERSION,
    )
