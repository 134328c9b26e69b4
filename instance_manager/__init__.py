"""The instance manager: starts and supervises a storage node's engine and replica processes over gRPC."""
