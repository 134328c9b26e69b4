"""The use cases: asynchronous, over Protocols, knowing no library that touches the world.

Contract: every outside thing is a Protocol in `interfaces`; a fake for a test lives beside it in `fakes`.
"""
