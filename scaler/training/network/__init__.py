"""A trained network: what (`spec`), as a torch module (`module`), on disk (`checkpoint`), at work (`detector`)."""
