"""Training jobs: what a spec must satisfy, and the machine of their states. Pure; the journal does the I/O."""
