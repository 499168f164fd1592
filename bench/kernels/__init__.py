"""Every kernel beside its numpy reference, the peers and the limits of the machine."""
