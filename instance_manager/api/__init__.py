"""The gRPC API: services, conversion between the wire and the core, status codes, the server.

Nothing here starts a process or reads a file: `app` handles the requests.
"""
