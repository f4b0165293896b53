"""The broker that benches run against, as in the tests of `streams`."""

from tests.streams.conftest import address, broker

__all__ = ["address", "broker"]
