"""A stand-in for an engine or a replica: serves gRPC health and misbehaves on demand."""
