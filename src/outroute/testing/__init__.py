"""What tests of transports need: packets, networks that can be disturbed, and the conformance suite."""
