"""telegrad-server: everything that owns arrays, devices, time and disks."""

__version__ = "0.1.0"
