"""Feature aggregation between backbone and head."""
