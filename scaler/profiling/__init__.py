"""From a device to its latency table: plan, measure, harvest, prove."""
