"""A budget of bytes: what clients may take up at once, each of them and all together."""

from collections import Counter

from instance_manager.core.errors import ResourceExhaustedError


class ByteBudget:
    """Counts the bytes of each client."""

    def __init__(self, most: int, most_of_client: int, refusal: str) -> None:
        """Take the largest numbers of bytes, of all clients and of one.

        `refusal` is the message of the error: {size} bytes are asked for, {who} {taken}, {most} is the most.
        """
        self._most = most
        self._most_of_client = most_of_client
        self._refusal = refusal
        self._clients: Counter[str] = Counter()
        self._total = 0

    @property
    def taken(self) -> int:
        """Number of bytes that have not been given back."""
        return self._total

    def take(self, client: str, size: int) -> None:
        """Take bytes.

        Raises:
            ResourceExhaustedError: if too many are taken already.
        """
        for taken, most, who in (
            (self._clients[client], self._most_of_client, "this client has"),
            (self._total, self._most, "all clients have"),
        ):
            if taken + size > most:
                raise ResourceExhaustedError(self._refusal.format(size=size, who=who, taken=taken, most=most))
        self._clients[client] += size
        self._total += size

    def give_back(self, client: str, size: int) -> None:
        """Give bytes back."""
        self._total -= size
        self._clients[client] -= size
        if not self._clients[client]:
            del self._clients[client]
