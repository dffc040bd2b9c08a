"""Ray Serve: one application of two deployments that colours the pictures it is sent, and the command that runs it."""
