"""The methods of ProxyEngineService that are refused."""

from collections.abc import Mapping

_LATER = "this version of the instance manager does not know how"
_V2_ONLY = "only the v2 data engine has it, and this daemon's proxy speaks with v1 engines only"

REFUSED: Mapping[str, str] = {
    "BackupRestore": _LATER,
    "BackupRestoreFinish": "no data engine needs it",
    "ReplicaRebuildingQosSet": _V2_ONLY,
    "SPDKBackingImageCreate": _V2_ONLY,
    "SPDKBackingImageDelete": _V2_ONLY,
    "SPDKBackingImageGet": _V2_ONLY,
    "SPDKBackingImageList": _V2_ONLY,
    "SPDKBackingImageWatch": _V2_ONLY,
    "SnapshotBackup": _LATER,
    "SnapshotBackupStatus": _LATER,
}
"""Why, by method."""
READS = frozenset(
    {"SPDKBackingImageGet", "SPDKBackingImageList", "SPDKBackingImageWatch", "SnapshotBackupStatus"}
)
"""Those that would change nothing."""
