"""Speed, freshness and memory, measured beside their limits in one run."""
