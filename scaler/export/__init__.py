"""Networks as files that runtimes read."""
