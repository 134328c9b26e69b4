"""The methods of ProxyEngineService that are refused."""

from collections.abc import Mapping

_V2_ONLY = "only the v2 data engine has it, and this daemon's proxy speaks with v1 engines only"

REFUSED: Mapping[str, str] = {
    "BackupRestoreFinish": "no data engine needs it",
    "ReplicaRebuildingQosSet": _V2_ONLY,
    "SPDKBackingImageCreate": _V2_ONLY,
    "SPDKBackingImageDelete": _V2_ONLY,
    "SPDKBackingImageGet": _V2_ONLY,
    "SPDKBackingImageList": _V2_ONLY,
    "SPDKBackingImageWatch": _V2_ONLY,
}
"""Why, by method."""
READS = frozenset({"SPDKBackingImageGet", "SPDKBackingImageList", "SPDKBackingImageWatch"})
"""Those that would change nothing."""
