"""The server of telegrad: everything that owns arrays, devices, time and disks."""
