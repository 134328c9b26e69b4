"""The methods of ProxyEngineService that a data engine refuses."""

from collections.abc import Mapping

_NOBODY = "no data engine needs it"
_SWITCHED_OFF = "only the v2 data engine has it, which is switched off; start the daemon with --spdk-enabled"
_NOT_V2 = "the v2 data engine does not have it"

REFUSED: Mapping[str, str] = {
    "BackupRestoreFinish": _NOBODY,
    "ReplicaRebuildingQosSet": "only the v2 data engine has it",
    "SPDKBackingImageCreate": _SWITCHED_OFF,
    "SPDKBackingImageDelete": _SWITCHED_OFF,
    "SPDKBackingImageGet": _SWITCHED_OFF,
    "SPDKBackingImageList": _SWITCHED_OFF,
    "SPDKBackingImageWatch": _SWITCHED_OFF,
}
"""Why v1 refuses them, by method."""
READS = frozenset({"SPDKBackingImageGet", "SPDKBackingImageList", "SPDKBackingImageWatch"})
"""Those that would change nothing."""

REFUSED_BY_V2: Mapping[str, str] = {
    "BackupRestoreFinish": _NOBODY,
    "ReplicaModeUpdate": _NOT_V2,
    "ReplicaRebuildConcurrentSyncLimitGet": _NOT_V2,
    "ReplicaRebuildConcurrentSyncLimitSet": _NOT_V2,
    "ReplicaVerifyRebuild": _NOT_V2,
    "VolumeFrontendShutdown": _NOT_V2,
    "VolumeFrontendStart": _NOT_V2,
    "VolumeSnapshotMaxSizeSet": _NOT_V2,
    "VolumeUnmapMarkSnapChainRemovedSet": _NOT_V2,
}
"""Why v2 refuses them, by method."""
