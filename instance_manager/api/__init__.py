"""The gRPC face: services, conversion between the wire and the core, status codes, the server itself.

Nothing here starts a process or reads a file; requests go to `app`, answers come from it.
"""
