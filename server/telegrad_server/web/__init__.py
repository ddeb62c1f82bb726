"""A web page for people: jobs with their curves, devices, sessions. Nothing here decides; it looks, and passes on."""
