"""Ray as the launcher: it knows the hosts, places worker processes on them, watches and kills them. Nothing else.

Nothing here imports Ray into the gateway: Ray ends the process of a driver whose head is out of reach for a while. So
the driver is a child of the gateway (`driver`); `RayLauncher` talks to it in lines of JSON and starts it again.
"""

from telegrad_server.cluster.ray_cluster.launcher import Program, RayLauncher
from telegrad_server.cluster.ray_cluster.settings import Pool, RayletSettings, RaySettings, check_ray
from telegrad_server.cluster.ray_cluster.start import run_raylet

__all__ = ["Pool", "Program", "RayLauncher", "RaySettings", "RayletSettings", "check_ray", "run_raylet"]
