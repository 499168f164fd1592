"""Every kernel beside its numpy reference and the peers, with the machine's own limits."""
