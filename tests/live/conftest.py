"""What real workers run against, as in the tests of `streams`."""

from tests.streams.conftest import address, broker, warehouse

__all__ = ["address", "broker", "warehouse"]
