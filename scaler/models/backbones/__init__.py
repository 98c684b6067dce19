"""Feature extractors; each returns a `Trunk` whose trailing blocks can be cut off."""
