"""The keys of all environments of a process: none may be for two upstreams."""

from nanonets_proxy.core.keys.api_key import ApiKey, KeyUnusable


class KeyOwners:
    """Remembers which audience each key is for."""

    def __init__(self) -> None:
        self._keys: list[ApiKey] = []

    def add(self, key: ApiKey) -> None:
        """Adds a bound key.

        Raises:
            KeyUnusable: an equal key is bound to another audience, as if two environments inherited one source.
        """
        for other in self._keys:
            if other == key and other.audience != key.audience:
                raise KeyUnusable(
                    key.name,
                    f"is for {key.audience}, and for {other.audience} too ({other.name}): "
                    "a key goes to one upstream, so each of these environments needs its own",
                )
        self._keys.append(key)
