"""The use cases: asynchronous, over Protocols, without libraries that do I/O.

Contract: everything outside is a Protocol in `interfaces`; the fakes for tests are beside it in `fakes`.
"""
